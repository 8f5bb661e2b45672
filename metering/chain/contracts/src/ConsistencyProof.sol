// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// RFC 9162 section 2.1.4.2: is the tree of `oldSize` leaves a prefix of the tree of `newSize`? Hashes are SHA-256.
library ConsistencyProof {
    /// True when `proof` leads from both trees to both roots. Sizes must satisfy 0 < oldSize < newSize.
    function verify(uint64 oldSize, bytes32 oldRoot, uint64 newSize, bytes32 newRoot, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        uint64 first = oldSize - 1;
        uint64 last = newSize - 1;
        while (first & 1 == 1) {
            (first, last) = (first >> 1, last >> 1);
        }
        uint256 next;
        bytes32 seed = oldRoot; // a complete old tree is a node of the new one, so the proof leaves it out
        if (first != 0) {
            if (proof.length == 0) return false;
            (seed, next) = (proof[0], 1);
        }
        (bytes32 oldHash, bytes32 newHash) = (seed, seed);
        for (; next < proof.length; next++) {
            if (last == 0) return false;
            if (first & 1 == 1 || first == last) {
                oldHash = _node(proof[next], oldHash);
                newHash = _node(proof[next], newHash);
                while (first & 1 == 0 && first != 0) {
                    (first, last) = (first >> 1, last >> 1);
                }
            } else {
                newHash = _node(newHash, proof[next]);
            }
            (first, last) = (first >> 1, last >> 1);
        }
        return last == 0 && oldHash == oldRoot && newHash == newRoot;
    }

    /// SHA-256(0x01 || left || right).
    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
