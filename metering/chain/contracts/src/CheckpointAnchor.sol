// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ConsistencyProof} from "./ConsistencyProof.sol";

/// Heads of transparency logs. A head is replaced only by one that provably extends it: not even the anchorer can
/// rewrite a log here. Earlier heads are in the events, and each is a prefix of the latest.
contract CheckpointAnchor is AccessControl {
    bytes32 public constant ANCHORER_ROLE = keccak256("ANCHORER_ROLE");

    struct Head {
        bytes32 root;
        uint64 size; // leaves
        uint64 blockNumber;
        uint64 time; // seconds, of that block
    }

    mapping(bytes32 originId => Head) private _heads;

    event Anchored(bytes32 indexed originId, uint64 indexed size, bytes32 root, string origin);

    error SizeNotGreater(uint64 anchored, uint64 offered);
    error Inconsistent(uint64 anchored, uint64 offered);

    constructor(address admin) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(ANCHORER_ROLE, admin);
    }

    /// Record a checkpoint of the log `origin`. `proof` is the RFC 6962 consistency proof from the head recorded
    /// before; it is not read for the first one.
    function anchor(string calldata origin, uint64 size, bytes32 root, bytes32[] calldata proof)
        external
        onlyRole(ANCHORER_ROLE)
    {
        bytes32 originId = keccak256(bytes(origin));
        Head storage head = _heads[originId];
        uint64 anchored = head.size;
        if (size <= anchored) revert SizeNotGreater(anchored, size);
        if (anchored != 0 && !ConsistencyProof.verify(anchored, head.root, size, root, proof)) {
            revert Inconsistent(anchored, size);
        }
        _heads[originId] = Head(root, size, uint64(block.number), uint64(block.timestamp));
        emit Anchored(originId, size, root, origin);
    }

    /// The latest recorded checkpoint of a log; all zero when there is none.
    function latest(string calldata origin) external view returns (Head memory) {
        return _heads[keccak256(bytes(origin))];
    }
}
