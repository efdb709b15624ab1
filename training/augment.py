"""Random patches and augmentation, on torch tensors in HU.

Order matters: what happens in the patient or the scanner (geometry, contrast
agent, calibration, field of view) comes in HU before the clip; what imitates
image quality comes after normalization.
"""

import math
import random

import torch
import torch.nn.functional as F

from bone_labels import BONE
from tasks import BACKGROUND, IGNORE, Task


def sample_patch(sample, task: Task, rng: random.Random, empty: float):
    """A patch at a random place, often rotated and scaled, by chance flipped; and whether it is mirrored.

    `empty` is the HU for what lies outside the scan. At inference nnU-Net pads a
    small scan with the normalized value 0, so a second kind of patch leaves NaN
    there for the caller to fill after normalization.
    """
    patch = task.patch
    shape = torch.tensor(sample.image.shape, dtype=torch.float32)
    size = torch.tensor(patch, dtype=torch.float32)

    rotation, zoom = torch.eye(3), torch.ones(3)
    spatial = rng.random() < task.spatial
    if spatial:
        rotation = rotation_matrix([rng.gauss(0, 0.2) for _ in range(3)])
        # The patch turns in millimeters, not in voxels.
        mm = torch.tensor(task.spacing)
        rotation = rotation * mm[None, :] / mm[:, None]
        zoom = torch.tensor([rng.uniform(0.75, 1.3) * f for f in (rng.uniform(0.93, 1.07) for _ in range(3))])
    flips = torch.tensor([-1.0 if rng.random() < p else 1.0 for p in task.flips])

    center = pick_center(sample, size, rng)
    steps = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
    position = (offsets * (flips * zoom)) @ rotation.T + center
    if not spatial:
        # Whole-voxel positions keep the resampled values untouched.
        position = position - position[0, 0, 0] + torch.round(position[0, 0, 0])

    outside = ((position < -0.5) | (position > shape - 0.5)).any(-1)
    # Reading a box around the patch instead of the whole volume saves most of the time.
    low = position.reshape(-1, 3).amin(0).floor().clamp(min=0).minimum(shape - 1).long()
    high = position.reshape(-1, 3).amax(0).ceil().minimum(shape - 1).clamp(min=0).long()
    low, high = torch.minimum(low, (high - 1).clamp(min=0)), torch.maximum(high, low + 1)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high))
    image, label = sample.image[box].float(), sample.label[box].float()
    grid = ((position - low) / (torch.tensor(image.shape) - 1).clamp(min=1) * 2 - 1).flip(-1)[None]
    ct = F.grid_sample(image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
    target = F.grid_sample(label[None, None], grid, mode="nearest", padding_mode="border", align_corners=True)
    target = target[0, 0].round().long()
    if rng.random() < 0.5:
        ct[outside], target[outside] = empty, BACKGROUND
    else:
        ct[outside], target[outside] = float("nan"), IGNORE
    return ct, target, bool(flips.prod() < 0)


def pick_center(sample, size: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Two patches of three are centered on a label; all stay inside the scan as far as they fit."""
    shape = torch.tensor(sample.label.shape, dtype=torch.float32)
    center = torch.tensor([rng.uniform(0, n - 1) for n in sample.label.shape])
    if sample.centers and rng.random() < 0.67:
        places = sample.centers[rng.choice(list(sample.centers))]
        index = int(places[rng.randrange(len(places))])
        center = torch.tensor(unravel(index, sample.label.shape), dtype=torch.float32)
        center = center + torch.tensor([rng.uniform(-0.25, 0.25) * float(n) for n in size])
    low = torch.minimum((size - 1) / 2, (shape - 1) / 2)
    return torch.maximum(torch.minimum(center, shape - 1 - low), low)


def swap_sides(target: torch.Tensor, annotated: torch.Tensor, swaps) -> tuple[torch.Tensor, torch.Tensor]:
    """A mirrored patient's left is right."""
    if not swaps:
        return target, annotated
    table = torch.arange(IGNORE + 1)
    for a, b in swaps:
        table[a], table[b] = b, a
    return table[target], annotated[table[: len(annotated)]]


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


def bone_effects(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Bone density, metal and contrast agent."""
    if rng.random() < 0.6:
        ct = thin_marrow(ct, target, rng)
    if rng.random() < 0.1:
        ct = implant(ct, target, rng)
    if rng.random() < 0.35:
        ct = add_contrast(ct, target, rng)
    return ct


def surroundings(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Table, cushions and noisy air around a patient whose surroundings were masked out, or has another table."""
    if rng.random() < 0.4:
        return ct
    air = (ct < -600) & (target == BACKGROUND)
    if rng.random() < 0.7:
        ct = torch.where(air, ct + torch.randn(ct.shape, generator=torch_rng(rng)).abs() * rng.uniform(5, 60), ct)
    _, ny, nx = ct.shape
    for _ in range(rng.choice((0, 1, 1, 2))):
        # A sheet: flat or a shallow bowl, anywhere but mostly behind the patient (y grows to posterior).
        y, x = torch.arange(ny)[:, None].float(), torch.arange(nx)[None].float()
        bowl = rng.choice((0.0, rng.uniform(0.0, 0.012))) * (x - rng.uniform(0.2, 0.8) * nx) ** 2
        top = (rng.uniform(0.5, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.5)) * ny
        depth = y - (top - bowl)
        thickness = rng.uniform(0.7, 3.0)
        sheet = (depth >= 0) & (depth < thickness)
        if rng.random() < 0.5:
            sheet = sheet | ((depth >= 0) & (depth < rng.uniform(4, 14)) & (depth % rng.uniform(3, 14) < thickness))
        ct = torch.where(air & sheet[None], rng.uniform(-750, 300), ct)
    if rng.random() < 0.3:
        cushion = smooth_field(ct.shape, rng.uniform(12, 40), rng) > rng.uniform(0.2, 0.9)
        ct = torch.where(air & cushion, rng.uniform(-980, -650), ct)
    if rng.random() < 0.05:
        ct = torch.where(air, 0.0, ct)  # a mask that wrote zeros
    return ct


def recolor(ct: torch.Tensor, target: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Another contrast phase, or after SynthSeg (Billot et al. 2023) another image altogether:
    every structure gets a gray value of its own around or far from the one it has."""
    kind = rng.random()
    if kind < 0.35:
        return ct
    ids = torch.where(target == IGNORE, 0, target)
    count = int(ids.max()) + 1
    sizes = torch.bincount(ids.flatten(), minlength=count).clamp_min(1)
    clean = torch.nan_to_num(ct)
    means = torch.zeros(count).scatter_add_(0, ids.flatten(), clean.flatten()) / sizes
    generator = torch_rng(rng)
    if kind < 0.8:
        # Soft tissue takes up contrast, lung does not.
        shift = torch.randn(count, generator=generator) * rng.uniform(5, 45) * (means > -200)
        gain = 1 + torch.randn(count, generator=generator) * 0.1
    else:
        spread = torch.where(means > 150, 200.0, torch.where(means > -200, 90.0, 60.0))
        shift = torch.randn(count, generator=generator) * spread
        gain = torch.rand(count, generator=generator) * 0.9 + 0.1
    shift[0], gain[0] = 0, 1
    new = means[ids] + shift[ids] + (clean - means[ids]) * gain[ids]
    return torch.where(torch.isnan(ct), ct, new)


def previous_stage(target: torch.Tensor, labels: int, rng: random.Random) -> list[torch.Tensor]:
    """The label map a coarse stage might have made: blurred, ragged, with holes and false islands."""
    channels = []
    for label in range(1, labels + 1):
        x = (target == label).float()
        factor = rng.uniform(1.2, 2.2)
        small = [max(2, round(n / factor)) for n in x.shape]
        coarse = F.interpolate(x[None, None], size=small, mode="trilinear")
        x = F.interpolate(coarse, size=x.shape, mode="trilinear")[0, 0]
        noise = smooth_field(x.shape, rng.uniform(4, 12), rng) * rng.uniform(0.05, 0.35)
        x = x + noise + rng.uniform(-0.15, 0.15)
        if rng.random() < 0.3:
            x = x - 2.0 * (smooth_field(x.shape, rng.uniform(15, 40), rng) > rng.uniform(0.6, 1.4))
        channels.append((x > 0.5).float())
    if rng.random() < 0.03:
        channels = [torch.zeros_like(c) for c in channels]
    return channels


def scanner_effects(ct: torch.Tensor, target: torch.Tensor, rng: random.Random, empty: float) -> torch.Tensor:
    """Tube voltage, calibration, field of view: all still in HU."""
    if rng.random() < 0.3:
        stretch = rng.uniform(0.7, 1.25)
        ct = torch.where(ct > 50, 50 + (ct - 50) * stretch, ct)
    if rng.random() < 0.3:
        ct = ct + rng.gauss(0, 15)
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
    small = [min(n, max(4, round(n / f))) for n, f in zip(x.shape, factors)]
    coarse = F.interpolate(x[None, None], size=small, mode="trilinear")
    return F.interpolate(coarse, size=x.shape, mode="trilinear")[0, 0]


def torch_rng(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(63))
