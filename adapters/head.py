"""The attribution head's file, as far as it can be checked without running it. The format: docs/formats/head.md.

Safetensors with two F32 tensors, K [contributors, taps, k, r] and P [D, k], and this metadata (strings):

    format            "openledger-head/1"
    base              digest of the base model
    weights           digest of the bytes of adapter_model.safetensors
    taps              JSON list of module paths in PEFT's naming: "model.layers.20.mlp.down_proj"
    contributors      JSON list of names, sorted and unique: the rows of K
    method            "influence", "trace" or "calibrated" (ATTRIBUTION.md section 4)
    datanet_version   digest of the Datanet version it was fitted for
    fidelity          digest of fidelity.json
"""

FORMAT = "openledger-head/1"
METHODS = ("influence", "trace", "calibrated")
