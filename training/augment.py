"""Random patches and augmentation, on torch tensors in HU.

Order matters: what happens in the patient or the scanner (geometry, contrast
agent, calibration, field of view) comes in HU before the clip; what imitates
image quality comes after normalization.
"""

import math
import random

import torch
import torch.nn.functional as F

from bone_labels import BACKGROUND, BONE, IGNORE


def sample_patch(image: torch.Tensor, label: torch.Tensor, patch, rng: random.Random, empty: float):
    """A patch at a random place, often rotated and scaled, flipped left-right and by chance up-down.

    `empty` is the HU for what lies outside the scan. At inference nnU-Net pads a
    small scan with the normalized value 0, so a second kind of patch leaves NaN
    there for the caller to fill after normalization.
    """
    shape = torch.tensor(image.shape, dtype=torch.float32)
    size = torch.tensor(patch, dtype=torch.float32)

    rotation, zoom = torch.eye(3), torch.ones(3)
    spatial = rng.random() < 0.6
    if spatial:
        rotation = rotation_matrix([rng.gauss(0, 0.2) for _ in range(3)])
        zoom = torch.tensor([rng.uniform(0.75, 1.3) * f for f in (rng.uniform(0.93, 1.07) for _ in range(3))])
    flips = torch.tensor([-1.0 if rng.random() < p else 1.0 for p in (0.1, 0.1, 0.5)])

    center = pick_center(label, size, rng)
    steps = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
    position = (offsets * (flips * zoom)) @ rotation.T + center
    if not spatial:
        # Whole-voxel positions keep the resampled values untouched.
        position = position - position[0, 0, 0] + torch.round(position[0, 0, 0])

    outside = ((position < -0.5) | (position > shape - 0.5)).any(-1)
    grid = (position / (shape - 1) * 2 - 1).flip(-1)[None]
    ct = F.grid_sample(image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
    target = F.grid_sample(label[None, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    target = target[0, 0].round().long()
    if rng.random() < 0.5:
        ct[outside], target[outside] = empty, BACKGROUND
    else:
        ct[outside], target[outside] = float("nan"), IGNORE
    return ct, target


def pick_center(label: torch.Tensor, size: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Two patches of three are centered on bone; all stay inside the scan as far as they fit."""
    shape = torch.tensor(label.shape, dtype=torch.float32)
    center = torch.tensor([rng.uniform(0, n - 1) for n in label.shape])
    if rng.random() < 0.67:
        bone = torch.nonzero(label.flatten() == BONE)
        if len(bone):
            index = int(bone[rng.randrange(len(bone))])
            center = torch.tensor(unravel(index, label.shape), dtype=torch.float32)
    low = torch.minimum((size - 1) / 2, (shape - 1) / 2)
    return torch.maximum(torch.minimum(center, shape - 1 - low), low)


def unravel(index: int, shape) -> tuple[int, int, int]:
    rest, x = divmod(index, shape[2])
    z, y = divmod(rest, shape[1])
    return z, y, x


def rotation_matrix(angles) -> torch.Tensor:
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        i, j = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
        matrix = turn @ matrix
    return matrix


def scanner_effects(ct: torch.Tensor, target: torch.Tensor, rng: random.Random, empty: float) -> torch.Tensor:
    """Bone density, contrast agent, calibration, field of view: all still in HU."""
    if rng.random() < 0.6:
        ct = thin_marrow(ct, target, rng)
    if rng.random() < 0.1:
        ct = implant(ct, target, rng)
    if rng.random() < 0.3:
        stretch = rng.uniform(0.7, 1.25)
        ct = torch.where(ct > 50, 50 + (ct - 50) * stretch, ct)
    if rng.random() < 0.35:
        ct = add_contrast(ct, target, rng)
    if rng.random() < 0.3:
        ct = ct + rng.gauss(0, 20)
    if rng.random() < 0.25:
        crop_view(ct, target, rng, empty)
    return ct


def thin_marrow(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Old bones: inside a shell of cortex the trabeculae give way to fat, in part or in whole.

    Most training patients have dense vertebrae; the sacrum and the femur of others
    are as dark as muscle or fat inside, and are bone all the same.
    """
    bone = (target == BONE).float()[None, None]
    shell = rng.choice((1, 1, 2))
    # Outside the patch nothing is known, so its border does not count as surface.
    depth = 1 - F.max_pool3d(1 - bone, 2 * shell + 1, stride=1, padding=shell)[0, 0]
    patchy = (smooth_field(ct.shape, rng.uniform(8, 40), rng) * 0.35 + rng.uniform(0.3, 1.1)).clamp(0, 1)
    darker = ct + patchy * (rng.uniform(-70, 130) - ct).clamp(max=0)
    return torch.where(depth > 0, darker, ct)


def implant(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A metal rod through bone: a nail or screw, which the reference counts as bone, with dark streaks in plane."""
    bone = torch.nonzero(target == BONE).float()
    if len(bone) < 2:
        return ct
    first, second = (bone[rng.randrange(len(bone))] for _ in range(2))
    direction = (second - first) / (second - first).norm().clamp_min(1e-3)
    axes = [torch.arange(n, dtype=torch.float32) for n in ct.shape]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - first
    along = (offset * direction).sum(-1)
    distance = (offset - along[..., None] * direction).norm(dim=-1)
    reach = along.abs() < rng.uniform(5, 30)
    streak = reach & (distance < 8) & (smooth_field(ct.shape, rng.uniform(4, 8), rng) > 0.8)
    ct = torch.where(streak, ct - rng.uniform(100, 500), ct)
    return torch.where(reach & (distance < rng.uniform(1, 2.2)) & (target == BONE), 3000.0, ct)


def add_contrast(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Bright tubes (vessels) or blobs (kidney, bowel, heart) in soft tissue; their label stays background.

    Where two smooth random fields are both near zero runs a curve: a vessel.
    """
    soft = (target == BACKGROUND) & (ct > -30) & (ct < 130)
    first, second = (smooth_field(ct.shape, rng.uniform(12, 24), rng) for _ in range(2))
    if rng.random() < 0.6:
        width = rng.uniform(0.1, 0.35)
        shape = (1.3 - (first**2 + second**2) / width**2).clamp(0, 1)
        dose = rng.uniform(100, 450) if rng.random() < 0.8 else rng.uniform(450, 1500)
    else:
        shape = ((first - rng.uniform(0.6, 1.2)) * 6).clamp(0, 1)
        dose = rng.uniform(50, 350)
    return torch.where(soft, ct + dose * shape, ct)


def smooth_field(shape, wavelength: float, rng: random.Random) -> torch.Tensor:
    coarse = [max(3, round(n / wavelength)) for n in shape]
    noise = torch.tensor([rng.gauss(0, 1) for _ in range(math.prod(coarse))]).reshape(1, 1, *coarse)
    return F.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def crop_view(ct: torch.Tensor, target: torch.Tensor, rng: random.Random, empty: float) -> None:
    """A smaller field of view: a round one in plane, or a slab cut off at one end."""
    known = ~torch.isnan(ct)
    if rng.random() < 0.5:
        _, ny, nx = ct.shape
        radius = rng.uniform(0.3, 0.6) * max(ny, nx)
        cy, cx = (rng.uniform(0.35, 0.65) * n for n in (ny, nx))
        y, x = torch.arange(ny)[:, None], torch.arange(nx)[None]
        lost = (((y - cy) ** 2 + (x - cx) ** 2) > radius**2).expand(ct.shape) & known
    else:
        lost = torch.zeros_like(known)
        axis = rng.randrange(3)
        depth = int(ct.shape[axis] * rng.uniform(0.05, 0.4))
        start = 0 if rng.random() < 0.5 else ct.shape[axis] - depth
        lost.narrow(axis, start, depth).fill_(True)
        lost &= known
    ct[lost], target[lost] = empty, BACKGROUND


def image_quality(x: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Blur, low resolution, noise, brightness, contrast and gamma on the normalized patch."""
    if rng.random() < 0.15:
        x = blur(x, rng.uniform(0.4, 0.9))
    if rng.random() < 0.25:
        x = low_resolution(x, rng)
    if rng.random() < 0.3:
        x = x + torch.randn(x.shape, generator=torch_rng(rng)) * rng.uniform(0.02, 0.25)
    if rng.random() < 0.2:
        x = x * rng.uniform(0.8, 1.25)
    if rng.random() < 0.2:
        low, high = x.min(), x.max()
        unit = (x - low) / (high - low).clamp_min(1e-6)
        x = unit ** rng.uniform(0.75, 1.4) * (high - low) + low
    return x


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    taps = torch.exp(-torch.arange(-2.0, 3.0) ** 2 / (2 * sigma**2))
    taps = taps / taps.sum()
    x = F.pad(x[None, None], (2,) * 6, mode="replicate")
    for axis in range(3):
        shape = [1] * 5
        shape[2 + axis] = 5
        x = F.conv3d(x, taps.reshape(shape))
    return x[0, 0]


def low_resolution(x: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Thick slices along one axis, or coarse voxels along all three."""
    factors = [rng.uniform(1, 1.7)] * 3 if rng.random() < 0.4 else [1.0, 1.0, 1.0]
    factors[0 if rng.random() < 0.7 else rng.randrange(3)] *= rng.uniform(1, 2)
    small = [max(4, round(n / f)) for n, f in zip(x.shape, factors)]
    coarse = F.interpolate(x[None, None], size=small, mode="trilinear")
    return F.interpolate(coarse, size=x.shape, mode="trilinear")[0, 0]


def torch_rng(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(63))
