// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// Who owns a Datanet, which versions it has, and which adapters were trained on them. Everything but names and
/// owners is a SHA-256 digest of bytes that are specified off chain.
contract DatanetRegistry is AccessControl {
    bytes32 public constant REGISTRAR_ROLE = keccak256("REGISTRAR_ROLE");

    struct Adapter {
        bytes32 datanetId;
        bytes32 version;
        uint64 blockNumber; // 0: unknown adapter
        bool revoked;
    }

    mapping(bytes32 datanetId => address) public ownerOf;
    mapping(bytes32 datanetId => address) public pendingOwnerOf;
    mapping(bytes32 datanetId => mapping(bytes32 version => uint64)) public versionBlock; // 0: unknown version
    mapping(bytes32 adapter => Adapter) private _adapters;

    event DatanetRegistered(bytes32 indexed datanetId, address indexed owner, string name);
    event OwnershipOffered(bytes32 indexed datanetId, address indexed owner, address indexed next);
    event OwnershipTransferred(bytes32 indexed datanetId, address indexed previous, address indexed owner);
    event VersionPublished(bytes32 indexed datanetId, bytes32 indexed version);
    event AdapterRegistered(bytes32 indexed adapter, bytes32 indexed datanetId, bytes32 indexed version);
    event AdapterRevoked(bytes32 indexed adapter, bytes32 indexed datanetId);

    error NameInvalid();
    error OwnerInvalid();
    error AlreadyRegistered();
    error NotOwner(address caller);
    error VersionUnknown(bytes32 version);
    error AdapterUnknown(bytes32 adapter);

    constructor(address admin) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(REGISTRAR_ROLE, admin);
    }

    modifier onlyDatanetOwner(bytes32 datanetId) {
        if (ownerOf[datanetId] != msg.sender) revert NotOwner(msg.sender);
        _;
    }

    /// The id under which a name is stored.
    function idOf(string calldata name) public pure returns (bytes32) {
        return keccak256(bytes(name));
    }

    /// Claim a name (`[a-z0-9][a-z0-9-]{0,62}`) for `owner`. Names are given by registrars, since off chain each
    /// belongs to one account already.
    function registerDatanet(string calldata name, address owner) external onlyRole(REGISTRAR_ROLE) {
        if (!_isName(bytes(name))) revert NameInvalid();
        if (owner == address(0)) revert OwnerInvalid();
        bytes32 datanetId = idOf(name);
        if (ownerOf[datanetId] != address(0)) revert AlreadyRegistered();
        ownerOf[datanetId] = owner;
        emit DatanetRegistered(datanetId, owner, name);
    }

    /// Offer the Datanet to `next`, who must accept; address 0 withdraws the offer.
    function offerOwnership(bytes32 datanetId, address next) external onlyDatanetOwner(datanetId) {
        pendingOwnerOf[datanetId] = next;
        emit OwnershipOffered(datanetId, msg.sender, next);
    }

    function acceptOwnership(bytes32 datanetId) external {
        if (pendingOwnerOf[datanetId] != msg.sender) revert NotOwner(msg.sender);
        emit OwnershipTransferred(datanetId, ownerOf[datanetId], msg.sender);
        ownerOf[datanetId] = msg.sender;
        delete pendingOwnerOf[datanetId];
    }

    /// Record the Merkle root digest of a version.
    function publishVersion(bytes32 datanetId, bytes32 version) external onlyDatanetOwner(datanetId) {
        if (versionBlock[datanetId][version] != 0) revert AlreadyRegistered();
        versionBlock[datanetId][version] = uint64(block.number);
        emit VersionPublished(datanetId, version);
    }

    /// Record that an adapter (by its manifest's digest) was trained on a published version.
    function registerAdapter(bytes32 datanetId, bytes32 version, bytes32 adapter)
        external
        onlyDatanetOwner(datanetId)
    {
        if (versionBlock[datanetId][version] == 0) revert VersionUnknown(version);
        if (_adapters[adapter].blockNumber != 0) revert AlreadyRegistered();
        _adapters[adapter] = Adapter(datanetId, version, uint64(block.number), false);
        emit AdapterRegistered(adapter, datanetId, version);
    }

    /// Mark an adapter as withdrawn, for good. Its record stays.
    function revokeAdapter(bytes32 adapter) external {
        Adapter storage known = _adapters[adapter];
        if (known.blockNumber == 0) revert AdapterUnknown(adapter);
        if (ownerOf[known.datanetId] != msg.sender) revert NotOwner(msg.sender);
        if (known.revoked) revert AlreadyRegistered();
        known.revoked = true;
        emit AdapterRevoked(adapter, known.datanetId);
    }

    /// What is known of an adapter; blockNumber 0 when nothing is.
    function adapterOf(bytes32 adapter) external view returns (Adapter memory) {
        return _adapters[adapter];
    }

    function _isName(bytes calldata name) private pure returns (bool) {
        if (name.length == 0 || name.length > 63 || name[0] == "-") return false;
        for (uint256 i = 0; i < name.length; i++) {
            bytes1 c = name[i];
            if (!((c >= "a" && c <= "z") || (c >= "0" && c <= "9") || c == "-")) return false;
        }
        return true;
    }
}
