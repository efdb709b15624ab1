"""What happens to a batch of patches between the scan and the network.

Order matters: what happens in the patient or the scanner (contrast agent, calibration, field of view) comes in HU
before the clip; what imitates image quality comes after normalization. Every effect is computed for the whole
batch and kept where chance says so, so that no step waits for the device.
"""

import math

import torch
import torch.nn.functional as F

from bone_labels import BONE
from pool import Batch
from tasks import BACKGROUND, IGNORE, Task


def inputs(batch: Batch, task: Task, degraded: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Input channels [b, c, z, y, x] and target. `degraded` is the part of the patches that scanner
    effects and bad image quality may befall."""
    ct, target = batch.ct, batch.target
    mean, std, low, high = task.intensity
    if task.source in ("bone", "limb"):
        ct = bone_effects(ct, target, marrow=0.6 if task.source == "bone" else 0.3)
    elif task.source in ("abdomen", "total"):
        ct = recolor(ct, target)
    if task.source not in ("bone", "limb", "names"):
        ct = surroundings(ct, target)
    worse = chance(ct, degraded)
    # The fewer bones a scan shows, the harder it is to tell which ones they are.
    seen, seen_target = scanner_effects(ct, target, batch.padding, low, cut=0.6 if task.source == "names" else 0.25)
    ct, target = torch.where(worse, seen, ct), torch.where(worse, seen_target, target)
    x = (ct.clamp(low, high) - mean) / std
    if task.source == "names":
        # Half of the patches have no image at all: names must not depend on it.
        x = torch.where(chance(x, 0.5), outline(x), 0.0)
    else:
        x = torch.where(worse, image_quality(x), x)
    # nnU-Net's padding is an exact 0 that no scanner has touched.
    x = torch.where(batch.padding, 0.0, x)
    channels = [x]
    if task.previous_stage:
        truth = (target > 0) & (target < IGNORE) if task.source == "names" else None
        for label in range(1, task.input_channels):
            channels.append(previous_stage(target == label if truth is None else truth))
    return torch.stack(channels, 1), target


def uniform(like: torch.Tensor, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """A number for each patch, [b, 1, 1, 1]."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) * (high - low) + low


def chance(like: torch.Tensor, p: float) -> torch.Tensor:
    return uniform(like) < p


def normal(like: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    return torch.randn(len(like), 1, 1, 1, device=like.device) * sigma


def along(x: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """A matrix [b, out, in] applied along an axis of [b, z, y, x]."""
    moved = x.movedim(axis, 1)
    return (matrix @ moved.flatten(2)).unflatten(2, moved.shape[2:]).movedim(1, axis)


def hats(position: torch.Tensor, count: int) -> torch.Tensor:
    """Weights [b, n, count] that interpolate linearly at positions [b, n] between `count` knots."""
    return (1 - (position[..., None] - torch.arange(count, device=position.device)).abs()).clamp_min(0)


def smooth_field(like: torch.Tensor, shortest: float, longest: float) -> torch.Tensor:
    """Noise of unit size with a wavelength of its own for each patch, in voxels."""
    wavelength = uniform(like, shortest, longest)[:, :, 0, 0]
    shape = like.shape[1:]
    counts = [math.ceil(n / shortest) + 2 for n in shape]
    field = torch.randn(len(like), *counts, device=like.device)
    for axis, (n, count) in enumerate(zip(shape, counts), 1):
        start = torch.rand(len(like), 1, device=like.device)
        field = along(field, hats(start + torch.arange(n, device=like.device) / wavelength, count), axis)
    return field


def mesh(like: torch.Tensor):
    """Voxel indices along z, y and x, to be broadcast."""
    _, nz, ny, nx = like.shape
    return (torch.arange(nz, device=like.device).view(1, -1, 1, 1), torch.arange(ny, device=like.device).view(1, 1, -1, 1),
            torch.arange(nx, device=like.device).view(1, 1, 1, -1))


def bone_effects(ct: torch.Tensor, target: torch.Tensor, marrow: float) -> torch.Tensor:
    """Bone density, metal and contrast agent."""
    bone = (target >= BONE) & (target < IGNORE)
    ct = torch.where(chance(ct, marrow), thin_marrow(ct, bone), ct)
    ct = torch.where(chance(ct, 0.1), implant(ct, bone), ct)
    return torch.where(chance(ct, 0.35), add_contrast(ct, target), ct)


def thin_marrow(ct: torch.Tensor, bone: torch.Tensor) -> torch.Tensor:
    """Old bones: inside a shell of cortex the trabeculae give way to fat, in part or in whole.

    Most training patients have dense vertebrae; the sacrum and the femur of others
    are as dark as muscle or fat inside, and are bone all the same.
    """
    air = 1 - bone.float()
    if air.shape[1] > 1:
        # Outside the patch nothing is known, so its border does not count as surface.
        thin, thick = (F.max_pool3d(air[:, None], 2 * shell + 1, stride=1, padding=shell)[:, 0] for shell in (1, 2))
    else:
        thin, thick = (F.max_pool2d(air, 2 * shell + 1, stride=1, padding=shell) for shell in (1, 2))
    inside = torch.where(chance(ct, 2 / 3), thin, thick) < 0.5
    patchy = (smooth_field(ct, 8, 40) * 0.35 + uniform(ct, 0.3, 1.1)).clamp(0, 1)
    darker = ct + patchy * (uniform(ct, -70, 130) - ct).clamp(max=0)
    return torch.where(inside, darker, ct)


def random_voxel(mask: torch.Tensor) -> torch.Tensor:
    """[b, 3], a voxel of each mask that holds any."""
    flat = (torch.rand(mask.shape, device=mask.device) * mask).flatten(1).argmax(1)
    _, ny, nx = mask.shape[1:]
    return torch.stack([flat // (ny * nx), flat // nx % ny, flat % nx], 1).float()


def implant(ct: torch.Tensor, bone: torch.Tensor) -> torch.Tensor:
    """A metal rod through bone: a nail or screw, which the reference counts as bone, with dark streaks in plane."""
    first, second = random_voxel(bone), random_voxel(bone)
    direction = (second - first) / (second - first).norm(dim=1, keepdim=True).clamp_min(1e-3)
    offset = [axis - first[:, k].view(-1, 1, 1, 1) for k, axis in enumerate(mesh(ct))]
    along_rod = sum(o * direction[:, k].view(-1, 1, 1, 1) for k, o in enumerate(offset))
    distance = (sum(o**2 for o in offset) - along_rod**2).clamp_min(0).sqrt()
    reach = along_rod.abs() < uniform(ct, 5, 30)
    streak = reach & (distance < 8) & (smooth_field(ct, 4, 8) > 0.8)
    ct = torch.where(streak, ct - uniform(ct, 100, 500), ct)
    return torch.where(reach & (distance < uniform(ct, 1, 2.2)) & bone, 3000.0, ct)


def add_contrast(ct: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Bright tubes (vessels) or blobs (kidney, bowel, heart) in soft tissue; their label stays background.

    Where two smooth random fields are both near zero runs a curve: a vessel.
    """
    soft = (target == BACKGROUND) & (ct > -30) & (ct < 130)
    first, second = smooth_field(ct, 12, 24), smooth_field(ct, 12, 24)
    tubes = (1.3 - (first**2 + second**2) / uniform(ct, 0.1, 0.35) ** 2).clamp(0, 1)
    dose = torch.where(chance(ct, 0.8), uniform(ct, 100, 450), uniform(ct, 450, 1500))
    blobs = ((first - uniform(ct, 0.6, 1.2)) * 6).clamp(0, 1) * uniform(ct, 50, 350)
    return torch.where(soft, ct + torch.where(chance(ct, 0.6), tubes * dose, blobs), ct)


def surroundings(ct: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Table, cushions and noisy air around a patient whose surroundings were masked out, or has another table."""
    before = ct
    air = (ct < -600) & (target == BACKGROUND)
    noisy = air & chance(ct, 0.7)
    ct = torch.where(noisy, ct + torch.randn_like(ct).abs() * uniform(ct, 5, 60), ct)
    _, _, ny, nx = ct.shape
    _, y, x = mesh(ct)
    for likely in (0.75, 0.25):
        # A sheet: flat or a shallow bowl, anywhere but mostly behind the patient (y grows to posterior).
        bowl = uniform(ct, 0, 0.012) * chance(ct, 0.5) * (x - uniform(ct, 0.2, 0.8) * nx) ** 2
        top = torch.where(chance(ct, 0.85), uniform(ct, 0.5, 1.0), uniform(ct, 0, 0.5)) * ny
        depth = y - (top - bowl)
        thickness = uniform(ct, 0.7, 3.0)
        sheet = (depth >= 0) & (depth < thickness)
        ribbed = (depth >= 0) & (depth < uniform(ct, 4, 14)) & (depth % uniform(ct, 3, 14) < thickness)
        sheet = (sheet | (ribbed & chance(ct, 0.5))) & chance(ct, likely)
        ct = torch.where(air & sheet, uniform(ct, -750, 300), ct)
    cushion = (smooth_field(ct, 12, 40) > uniform(ct, 0.2, 0.9)) & chance(ct, 0.3)
    ct = torch.where(air & cushion, uniform(ct, -980, -650), ct)
    ct = torch.where(air & chance(ct, 0.05), 0.0, ct)  # a mask that wrote zeros
    return torch.where(chance(ct, 0.4), before, ct)


def recolor(ct: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Another contrast phase, or after SynthSeg (Billot et al. 2023) another image altogether:
    every structure gets a gray value of its own around or far from the one it has."""
    ids = torch.where(target == IGNORE, 0, target).flatten(1)
    count = IGNORE
    zero = torch.zeros(len(ct), count, device=ct.device)
    sizes = zero.scatter_add(1, ids, torch.ones_like(ct).flatten(1)).clamp_min(1)
    means = zero.scatter_add(1, ids, ct.flatten(1)) / sizes
    noise = torch.randn(2, len(ct), count, device=ct.device)
    amount = uniform(ct, 5, 45)[:, :, 0, 0]
    # Soft tissue takes up contrast, lung does not.
    phase = noise[0] * amount * (means > -200), 1 + noise[1] * 0.1
    spread = torch.where(means > 150, 200.0, torch.where(means > -200, 90.0, 60.0))
    other = noise[0] * spread, torch.rand(len(ct), count, device=ct.device) * 0.9 + 0.1
    kind = uniform(ct)[:, :, 0, 0]
    shift = torch.where(kind < 0.8, phase[0], other[0])
    gain = torch.where(kind < 0.8, phase[1], other[1])
    structure = torch.arange(count, device=ct.device) > 0
    shift, gain = torch.where(structure, shift, 0.0), torch.where(structure, gain, 1.0)
    base, add, scale = (t.gather(1, ids).view(ct.shape) for t in (means, shift, gain))
    return torch.where(kind.view(-1, 1, 1, 1) < 0.35, ct, base + add + (ct - base) * scale)


def previous_stage(truth: torch.Tensor) -> torch.Tensor:
    """The mask a coarse stage might have made: blurred, ragged, with holes and false islands."""
    x = truth.float()
    factor = uniform(x, 1.2, 2.2)[:, :, 0, 0]
    for axis in (1, 2, 3):
        x = along(x, coarser(x.shape[axis], factor), axis)
    x = x + smooth_field(x, 4, 12) * uniform(x, 0.05, 0.35) + uniform(x, -0.15, 0.15)
    lost = smooth_field(x, 15, 40) > uniform(x, 0.6, 1.4)
    x = torch.where(lost & chance(x, 0.3), x - 2.0, x)
    return (x > 0.5).float() * ~chance(x, 0.03)


def outline(x: torch.Tensor) -> torch.Tensor:
    """Where the body ends and the lungs are, as no two scans show it."""
    wavy = smooth_field(x, 6, 20) * uniform(x, 0, 0.6)
    return torch.where(x + wavy > uniform(x, -0.3, 0.3), 1.0, -1.0)


def scanner_effects(ct: torch.Tensor, target: torch.Tensor, padding: torch.Tensor, empty: float, cut: float):
    """Tube voltage, calibration, field of view: all still in HU."""
    stretched = torch.where(ct > 50, 50 + (ct - 50) * uniform(ct, 0.7, 1.25), ct)
    ct = torch.where(chance(ct, 0.3), stretched, ct)
    ct = ct + normal(ct, 15) * chance(ct, 0.3)
    lost = lost_view(ct) & chance(ct, cut) & ~padding
    return torch.where(lost, empty, ct), torch.where(lost, BACKGROUND, target)


def lost_view(ct: torch.Tensor) -> torch.Tensor:
    """What a smaller field of view leaves out: a round one in plane, or a slab cut off at one end."""
    _, nz, ny, nx = ct.shape
    z, y, x = mesh(ct)
    radius = uniform(ct, 0.3, 0.6) * max(ny, nx)
    outside = (y - uniform(ct, 0.35, 0.65) * ny) ** 2 + (x - uniform(ct, 0.35, 0.65) * nx) ** 2 > radius**2
    slab = torch.zeros_like(ct, dtype=torch.bool)
    axis = uniform(ct, 0, 3).floor()
    depth = uniform(ct, 0.05, 0.4)
    first = chance(ct, 0.5)
    for k, (index, n) in enumerate(zip((z, y, x), (nz, ny, nx))):
        cut = torch.where(first, index < depth * n, index >= n - depth * n)
        slab = slab | (cut & (axis == k))
    return torch.where(chance(ct, 0.5), outside.expand_as(ct), slab)


def image_quality(x: torch.Tensor) -> torch.Tensor:
    """Blur, low resolution, noise, brightness, contrast and gamma on the normalized patch."""
    blurred, coarse = chance(x, 0.15), chance(x, 0.25)
    sigma = uniform(x, 0.4, 0.9)[:, :, 0, 0]
    isotropic = torch.where(chance(x, 0.4), uniform(x, 1, 1.7), 1.0)
    thick = torch.where(chance(x, 0.7), 0.0, uniform(x, 0, 3).floor())
    extra = uniform(x, 1, 2)
    for axis in (1, 2, 3):
        n = x.shape[axis]
        same = torch.eye(n, device=x.device)
        factor = (isotropic * torch.where(thick == axis - 1, extra, 1.0))[:, :, 0, 0]
        matrix = torch.where(blurred[:, :, 0], gaussian(n, sigma), same)
        x = along(x, torch.where(coarse[:, :, 0], coarser(n, factor), same) @ matrix, axis)
    x = x + torch.randn_like(x) * uniform(x, 0.02, 0.25) * chance(x, 0.3)
    x = torch.where(chance(x, 0.2), x * uniform(x, 0.8, 1.25), x)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-6)
    curved = ((x - low) / span).clamp(0, 1) ** uniform(x, 0.75, 1.4) * span + low
    return torch.where(chance(x, 0.2), curved, x)


def gaussian(n: int, sigma: torch.Tensor) -> torch.Tensor:
    """Blur along an axis of n voxels as a matrix [b, n, n], for sigma [b, 1] in voxels."""
    i = torch.arange(n, device=sigma.device)
    weight = torch.exp(-((i[:, None] - i) ** 2) / (2 * sigma[..., None] ** 2))
    return weight / weight.sum(2, keepdim=True)


def coarser(n: int, factor: torch.Tensor) -> torch.Tensor:
    """To voxels `factor` times as thick and back by linear interpolation, as a matrix [b, n, n]."""
    i = torch.arange(n, device=factor.device)
    up = hats(i / factor, n)
    down = hats((i * factor).clamp(max=n - 1), n)
    matrix = up @ down
    return matrix / matrix.sum(2, keepdim=True).clamp_min(1e-6)
