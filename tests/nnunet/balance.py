"""Heads that use every class: fitted to the last features of the very tiles the predictor runs."""

import numpy as np
import torch

import networks
import reference

# Logits larger than a trained network's: at the corners of a patch the reference blends with fp16
# weights near 2^-24, which round logits to whole numbers, and small ones would tie there.
SCALE = 60.0


@torch.inference_mode()
def features(model, data):
    """Inputs of the head for every tile, as `[voxels, channels]`."""
    kept, (padded, slices, _) = [], reference.tiles(model, data)
    head = model.network.decoder.seg_layers[-1]
    hook = head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0].flatten(1).double().numpy().T))
    for where in slices:
        model.network(padded[where][None])
    hook.remove()
    return np.concatenate(kept)


@torch.no_grad()
def fit(net, x, regions=False, target=None, used=None):
    """Sets the last layer of `net`; returns its logits for `x`, a target for another fold.

    `used` are the labels that may win, all by default.
    """
    head = net.decoder.seg_layers[-1]
    heads = head.weight.shape[0]
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    if target is not None:
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
    elif regions:
        solution = overlapping(x, heads)
    else:
        solution = nearest_centroid(x, design, len(used) if used else heads)
        if used:
            everything = np.zeros((len(solution), heads))
            everything[-1] = -10 * SCALE
            everything[:, used] = solution
            solution = everything
    solution = networks.round_mantissa(np.round(solution, 3))
    head.weight.copy_(torch.from_numpy(solution[:-1].T.copy()).reshape(head.weight.shape))
    head.bias.copy_(torch.from_numpy(solution[-1].copy()))
    return design @ solution.astype(np.float64)


def principal(x, count):
    """The strongest components with unit variance: `(mean, axes)` with one column per component."""
    mean = x.mean(0)
    _, spread, axes = np.linalg.svd((x - mean)[:: max(1, len(x) // 20000)], full_matrices=False)
    scale = spread[:count] / np.sqrt(len(x[:: max(1, len(x) // 20000)]))
    # The sign of a component is the decomposition's whim.
    axes = axes[:count] * np.sign(axes[:count].sum(1))[:, None]
    return mean, axes.T / scale


def nearest_centroid(x, design, heads):
    """Linear logits whose argmax is the nearest of `heads` centers, with even shares."""
    mean, axes = principal(x, min(2, x.shape[1]))
    points = (x - mean) @ axes
    rng = np.random.default_rng(heads)
    centers = points[rng.choice(len(points), heads, replace=False)]
    sample = points[:: max(1, len(points) // 8000)]
    for _ in range(25):
        nearest = ((sample[:, None] - centers[None]) ** 2).sum(2).argmin(1)
        for k in range(heads):
            if (nearest == k).any():
                centers[k] = sample[nearest == k].mean(0)
    # Around zero where classes meet: fp16 is finest there.
    weights = SCALE * axes @ centers.T
    bias = -SCALE / 2 * (centers**2).sum(1) - mean @ weights
    solution = np.concatenate([weights, bias[None]])
    rows = design[:: max(1, len(design) // 20000)]
    for _ in range(100):
        share = np.bincount((rows @ solution).argmax(1), minlength=heads) / len(rows)
        solution[-1] += 0.05 * SCALE * (1 / heads - share)
    ranked = np.sort(rows @ solution, axis=1)
    border = ranked[:, -1] - ranked[:, -2] < 0.05 * SCALE
    common = np.linalg.lstsq(rows[border], ranked[border, -1], rcond=None)[0]
    return solution - common[:, None]


def overlapping(x, heads):
    """Logits of regions that each cover nearly half of the voxels and overlap."""
    mean, axes = principal(x, min(heads, x.shape[1]))
    mix = np.eye(axes.shape[1], heads) + 0.35 * np.eye(axes.shape[1], heads, k=1)
    weights = SCALE / 2 * axes @ mix
    values = (x - mean) @ weights
    return np.concatenate([weights, (-mean @ weights - np.quantile(values, 0.55, axis=0))[None]])


def batch_statistics(net, model, data):
    """Running means and variances as training on these tiles would leave them."""
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    padded, slices, _ = reference.tiles(model, data)
    with torch.no_grad():
        for where in slices:
            net(padded[where][None])
    net.eval()
