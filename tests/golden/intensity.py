"""Stage `normalize`."""

import numpy as np
from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

from common import Stage, noise

PROPERTIES = {"mean": 85.85818481445312, "std": 108.00911712646484,
              "percentile_00_5": -913.0, "percentile_99_5": 284.0}


def normalize():
    stage = Stage("normalize")
    hu = np.round(noise((6, 7, 8), 1) * 500 - 50)
    hu[0, 0, :4] = (-1024, 3071, -913, 284)
    masked = np.round(noise((5, 6, 7), 2) * 90 + 200)
    seg = np.where(noise((5, 6, 7), 3) > -0.4, 0, -1).astype(np.int8)
    masked[seg < 0] = 0
    rgb = np.random.default_rng(4).integers(0, 256, (4, 5, 6)).astype(np.float32)
    flat = np.full((3, 4, 5), 17.0, np.float32)
    wide = noise((6, 9, 11), 6) * 3000 - 1000

    def add(name, scheme, image, mask=None, properties=None, tolerance=0.0):
        use_mask = mask is not None
        image = image.astype(np.float32)
        run = getattr(schemes, scheme)(use_mask_for_norm=use_mask, intensityproperties=properties or {})
        out = run.run(image.copy(), None if mask is None else mask.copy())
        entry = dict(name=name, scheme=scheme, use_mask_for_norm=use_mask, properties=properties,
                     input=stage.save(name, image), expected=stage.save(f"{name}_expected", out),
                     relative_tolerance=tolerance)
        entry["seg"] = stage.save(f"{name}_seg", mask) if use_mask else None
        stage.add("cases", **entry)

    add("ct", "CTNormalization", hu, properties=PROPERTIES)
    add("ct_std_zero", "CTNormalization", hu, properties={**PROPERTIES, "std": 0.0})
    add("ct_fraction_bounds", "CTNormalization", wide,
        properties={"mean": 99.48, "std": 137.853, "percentile_00_5": -958.1, "percentile_99_5": 270.7})
    # The mean and standard deviation are f32 reductions; another summation order moves them.
    add("zscore", "ZScoreNormalization", hu, tolerance=1e-5)
    add("zscore_mask", "ZScoreNormalization", masked, mask=seg, tolerance=1e-5)
    add("zscore_flat", "ZScoreNormalization", flat)
    add("rescale", "RescaleTo01Normalization", hu)
    add("rescale_flat", "RescaleTo01Normalization", flat)
    add("rgb", "RGBTo01Normalization", rgb)
    add("none", "NoNormalization", hu)
    stage.close()
