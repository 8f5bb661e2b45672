// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// Pays an ERC-20 from Merkle trees of cumulative amounts: a leaf says what an address was promised since the
/// beginning, and a claim pays what of it was not paid yet. So each claim works once, with any number of trees between
/// two claims. Tokens that take a fee on transfer or rebase are not supported.
///
/// Trees come in epochs 1, 2, ... A proposed one takes effect when `delaySeconds` are over and anyone calls `activate`;
/// until then a guardian may cancel it. At any time
///     totalClaimed <= totalPromised <= totalClaimed + token balance,
/// hence a bad tree can never pay out more than its stated, funded total.
contract PayoutDistributor is AccessControl {
    using SafeERC20 for IERC20;

    bytes32 public constant PUBLISHER_ROLE = keccak256("PUBLISHER_ROLE");
    bytes32 public constant GUARDIAN_ROLE = keccak256("GUARDIAN_ROLE");

    struct Tree {
        bytes32 root;
        bytes32 document; // SHA-256 digest of the payout tree document, an entry of the transparency log
        uint256 total; // sum of its leaves, in token units
        uint64 epoch;
        uint64 activeAt; // seconds; of a proposal
    }

    IERC20 public immutable token;
    uint64 public immutable delaySeconds;
    uint256 public totalClaimed;
    mapping(address account => uint256) public claimed;
    Tree private _active;
    Tree private _proposal; // epoch 0: none

    event Proposed(uint64 indexed epoch, bytes32 root, uint256 total, bytes32 document, uint64 activeAt);
    event Cancelled(uint64 indexed epoch);
    event Activated(uint64 indexed epoch, bytes32 root, uint256 total, bytes32 document);
    event Claimed(address indexed account, uint256 amount, uint256 cumulative, uint64 indexed epoch);
    event Rescued(address indexed asset, address indexed to, uint256 amount);

    error EpochNotNext(uint64 active, uint64 offered);
    error ProposalWaits(uint64 epoch);
    error NoProposal();
    error TooEarly(uint64 activeAt);
    error TotalDecreased(uint256 active, uint256 offered);
    error Underfunded(uint256 missing);
    error ProofInvalid();
    error NothingToClaim();
    error TotalExceeded();
    error SurplusExceeded(uint256 surplus);

    constructor(IERC20 token_, uint64 delaySeconds_, address admin) {
        token = token_;
        delaySeconds = delaySeconds_;
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(PUBLISHER_ROLE, admin);
        _grantRole(GUARDIAN_ROLE, admin);
    }

    /// Offer the next epoch's tree. It must not promise less in total than the active one, and be funded already.
    function propose(uint64 epoch, bytes32 root, uint256 total, bytes32 document) external onlyRole(PUBLISHER_ROLE) {
        if (_proposal.epoch != 0) revert ProposalWaits(_proposal.epoch);
        if (epoch != _active.epoch + 1) revert EpochNotNext(_active.epoch, epoch);
        if (total < _active.total) revert TotalDecreased(_active.total, total);
        _requireFunded(total);
        Tree memory tree = Tree(root, document, total, epoch, uint64(block.timestamp) + delaySeconds);
        emit Proposed(epoch, root, total, document, tree.activeAt);
        if (delaySeconds == 0) {
            _activate(tree);
        } else {
            _proposal = tree;
        }
    }

    /// Withdraw a proposal before it takes effect.
    function cancel() external onlyRole(GUARDIAN_ROLE) {
        if (_proposal.epoch == 0) revert NoProposal();
        emit Cancelled(_proposal.epoch);
        delete _proposal;
    }

    /// Put the proposal into effect, once its delay is over. Anyone may call.
    function activate() external {
        Tree memory tree = _proposal;
        if (tree.epoch == 0) revert NoProposal();
        if (block.timestamp < tree.activeAt) revert TooEarly(tree.activeAt);
        _requireFunded(tree.total);
        delete _proposal;
        _activate(tree);
    }

    /// Pay `account` what the active tree promises it and it has not got. Anyone may call: only `account` is paid.
    function claim(address account, uint256 cumulative, bytes32[] calldata proof) external returns (uint256 amount) {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(account, cumulative))));
        if (!MerkleProof.verifyCalldata(proof, _active.root, leaf)) revert ProofInvalid();
        uint256 before = claimed[account];
        if (cumulative <= before) revert NothingToClaim();
        amount = cumulative - before;
        uint256 paid = totalClaimed + amount;
        if (paid > _active.total) revert TotalExceeded();
        claimed[account] = cumulative;
        totalClaimed = paid;
        emit Claimed(account, amount, cumulative, _active.epoch);
        token.safeTransfer(account, amount);
    }

    /// Take out what nobody was promised: any other asset in full, of the payout token only the surplus.
    function rescue(IERC20 asset, address to, uint256 amount) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (address(asset) == address(token)) {
            uint256 promised = _proposal.epoch == 0 ? _active.total : _proposal.total;
            uint256 surplus = token.balanceOf(address(this)) + totalClaimed - promised;
            if (amount > surplus) revert SurplusExceeded(surplus);
        }
        emit Rescued(address(asset), to, amount);
        asset.safeTransfer(to, amount);
    }

    /// The tree that claims are checked against; epoch 0 before the first.
    function active() external view returns (Tree memory) {
        return _active;
    }

    /// The tree that waits for its delay; epoch 0 when there is none.
    function proposal() external view returns (Tree memory) {
        return _proposal;
    }

    function _activate(Tree memory tree) private {
        _active = tree;
        emit Activated(tree.epoch, tree.root, tree.total, tree.document);
    }

    function _requireFunded(uint256 total) private view {
        uint256 funds = token.balanceOf(address(this)) + totalClaimed;
        if (funds < total) revert Underfunded(total - funds);
    }
}
