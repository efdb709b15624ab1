//! Images of one series to parts that are stacks, each with its verdict.
//!
//! Under one series UID lie localizers, pictures of slices, several acquisitions, reconstructions
//! with different kernels, the same slice twice. Slices that differ in size, pixel spacing,
//! orientation, frame of reference or kernel never share a stack. Slices that differ in
//! acquisition, image type, energy or contrast do not share one if their ranges overlap; where
//! they follow on one another they are one scan made in steps. Two slices in one place are one if
//! they are equal to the pixel; otherwise they must differ in something that tells two scans apart.

use super::stack::{self, ONE_PLACE_MM, Slice, Stack};
use crate::read::frame::{Frame, Keys};
use crate::read::image::{Image, Standing};
use fastnnunet_model::Mismatch;
use std::collections::HashMap;
use std::sync::Arc;

/// What becomes of a series: stacks or refusals, at least one.
pub(crate) struct Part {
    pub(crate) slices: usize,
    pub(crate) stack: Result<Stack, Mismatch>,
    /// What was corrected.
    pub(crate) notes: Vec<String>,
    /// An image to tell the series' attributes by.
    pub(crate) sample: Arc<Image>,
    /// A slice of this part, to tell its size by.
    pub(crate) slice: Option<Slice>,
}

/// Kinds of slices in one series, or slices in one place, beyond which nothing is told apart.
const MAX_KINDS: usize = 64;

/// How the pixels of two slices compare: equal or not, or unreadable.
pub(crate) type Same<'a> = &'a (dyn Fn(&Slice, &Slice) -> Result<bool, Mismatch> + Sync);

/// Groups the images of one series.
pub(crate) fn parts(images: Vec<Image>, allow_gaps: bool, same: Same<'_>) -> Vec<Part> {
    let images: Vec<Arc<Image>> = images.into_iter().map(Arc::new).collect();
    let Some(sample) = images.first().cloned() else { return Vec::new() };
    let mut notes = notes_of(&images);
    let refused = |fault, sample| Part {
        slices: images.len(),
        stack: Err(fault),
        notes: Vec::new(),
        sample,
        slice: None,
    };
    let unusable = images.iter().find_map(|image| match &image.standing {
        Standing::Unusable(fault) => Some((fault.clone(), image.clone())),
        _ => None,
    });
    if let Some((fault, image)) = unusable {
        return vec![refused(fault, image)];
    }
    let good = || images.iter().filter(|image| image.standing == Standing::Good);
    let slices: Vec<Slice> = good()
        .flat_map(|image| {
            (0..image.frames.len()).map(|frame| Slice { image: image.clone(), frame })
        })
        .collect();
    if slices.is_empty() {
        let what = images.iter().find_map(|image| match &image.standing {
            Standing::Apart(what) => Some(what.clone()),
            _ => None,
        });
        let fault = Mismatch::new(what.unwrap_or_else(|| "no image".into()), "slices of a CT");
        return vec![refused(fault, sample)];
    }
    let mut stacks = match partition(slices) {
        Ok(stacks) => stacks,
        Err(fault) => return vec![refused(fault, sample)],
    };
    stacks.sort_by_key(|slices| std::cmp::Reverse(slices.len()));
    leave_out_strays(&mut stacks, &mut notes);
    let several_kinds = stacks.len() > 1;
    let mut done = Vec::new();
    for slices in stacks {
        let mut notes = notes.clone();
        match distinct(slices, same, &mut notes) {
            Ok(slices) => split(slices, &KEYS, &notes, &mut |slices, mut notes| {
                done.push(finish(slices, allow_gaps, &mut notes));
            }),
            Err(fault) => done.push(refused(fault, sample.clone())),
        }
    }
    if done.len() > 1 {
        let what =
            if several_kinds { "differs in geometry or kernel" } else { "another acquisition" };
        let count = done.len();
        for (k, part) in done.iter_mut().enumerate() {
            part.notes.push(format!("part {} of {count} under one series UID: {what}", k + 1));
        }
    }
    done
}

/// Oddities of the files, and what was left out, each told once.
fn notes_of(images: &[Arc<Image>]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let mut tell = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    for image in images.iter().filter(|image| image.standing == Standing::Good) {
        image.notes.iter().for_each(|note| tell((*note).to_owned()));
    }
    let apart = images.iter().filter_map(|image| match &image.standing {
        Standing::Apart(what) => Some(what),
        _ => None,
    });
    for what in apart {
        tell(format!("left out: {what}"));
    }
    notes
}

fn finish(slices: Vec<Slice>, allow_gaps: bool, notes: &mut Vec<String>) -> Part {
    let sample = slices[0].image.clone();
    let (count, slice) = (slices.len(), slices[0].clone());
    let stack = stack::stack(slices, allow_gaps, notes);
    Part { slices: count, stack, notes: std::mem::take(notes), sample, slice: Some(slice) }
}

/// Slices in groups of which no two members differ in what no stack differs in.
fn partition(slices: Vec<Slice>) -> Result<Vec<Vec<Slice>>, Mismatch> {
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        match groups.iter().position(|group| !hard_difference(&group[0], &slice)) {
            Some(number) => groups[number].push(slice),
            None if groups.len() < MAX_KINDS => groups.push(vec![slice]),
            None => {
                let found = format!("slices of more than {MAX_KINDS} kinds under one series UID");
                return Err(Mismatch::new(found, "one kind"));
            }
        }
    }
    Ok(groups)
}

/// Whether two slices can never be of one stack.
fn hard_difference(a: &Slice, b: &Slice) -> bool {
    let (one, other) = (a.of(), b.of());
    // What one slice says and another leaves out is no difference.
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    let size = |slice: &Slice| (slice.image.layout.rows, slice.image.layout.columns);
    size(a) != size(b)
        || differ(&a.image.frame_of_reference, &b.image.frame_of_reference)
        || differ(&one.keys.kernel, &other.keys.kernel)
        || differs_in_orientation(one, other)
        || one.spacing.iter().zip(other.spacing).any(|(a, b)| (a - b).abs() > 1e-3 * a)
}

fn differs_in_orientation(a: &Frame, b: &Frame) -> bool {
    let flat = |frame: &Frame| frame.orientation.concat();
    flat(a).iter().zip(flat(b)).any(|(a, b)| (a - b).abs() > 5e-4)
}

fn counted(slices: usize) -> String {
    if slices == 1 { "1 slice".into() } else { format!("{slices} slices") }
}

/// A few slices beside a stack many times their number are a localizer or a left-over.
fn leave_out_strays(stacks: &mut Vec<Vec<Slice>>, notes: &mut Vec<String>) {
    let Some(most) = stacks.first().map(Vec::len) else { return };
    let main = stacks[0][0].clone();
    stacks.retain(|slices| {
        let stray = slices.len() <= 3 && slices.len() * 4 <= most;
        if stray {
            let (one, other) = (main.of(), slices[0].of());
            let what = if differs_in_orientation(one, other) {
                "another orientation"
            } else if main.image.frame_of_reference != slices[0].image.frame_of_reference {
                "another frame of reference"
            } else if one.keys.kernel != other.keys.kernel {
                "another kernel"
            } else {
                "another matrix or pixel spacing"
            };
            notes.push(format!("left out: {} of {what}", counted(slices.len())));
        }
        !stray
    });
}

/// Drops slices that are there twice, equal to the pixel.
fn distinct(
    mut slices: Vec<Slice>,
    same: Same<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Slice>, Mismatch> {
    let order = |slice: &Slice| stack::depth(slice.of());
    slices.sort_by(|a, b| order(a).total_cmp(&order(b)));
    let mut kept: Vec<Slice> = Vec::with_capacity(slices.len());
    let mut dropped = 0;
    for slice in slices {
        let near = |other: &&Slice| in_one_place(other, &slice);
        let twins: Vec<&Slice> = kept.iter().rev().take_while(near).collect();
        if twins.len() > MAX_KINDS {
            return Err(Mismatch::new(
                format!("more than {MAX_KINDS} images in one place"),
                "one image at each position",
            ));
        }
        let mut twin = false;
        for other in twins {
            if same(other, &slice)? {
                twin = true;
                break;
            }
            if other.image.instance_uid == slice.image.instance_uid && other.frame == slice.frame {
                return Err(Mismatch::new(
                    "two different images with one SOP instance UID",
                    "a UID for each image",
                ));
            }
        }
        if twin {
            dropped += 1;
        } else {
            kept.push(slice);
        }
    }
    if dropped > 0 {
        notes.push(format!("{} there twice: one of each is used", counted(dropped)));
    }
    Ok(kept)
}

fn in_one_place(a: &Slice, b: &Slice) -> bool {
    (stack::depth(a.of()) - stack::depth(b.of())).abs() < ONE_PLACE_MM
}

/// Something that tells scans apart; the first ones do so where ranges overlap, all of them where
/// two slices are in one place.
struct Key {
    of: fn(&Keys) -> &str,
    by_range: bool,
}

const KEYS: [Key; 8] = [
    Key { of: |keys| &keys.acquisition, by_range: true },
    Key { of: |keys| &keys.image_type, by_range: true },
    Key { of: |keys| &keys.temporal_position, by_range: true },
    Key { of: |keys| &keys.voltage, by_range: true },
    Key { of: |keys| &keys.contrast, by_range: true },
    Key { of: |keys| &keys.thickness, by_range: true },
    Key { of: |keys| &keys.acquisition_time, by_range: false },
    Key { of: |keys| &keys.content_time, by_range: false },
];

/// Splits slices, sorted by place, by the first key that tells them apart, and the pieces by the
/// keys after it. What two slices in one place cannot be told apart by is left for the stack to
/// refuse.
fn split(
    slices: Vec<Slice>,
    keys: &[Key],
    notes: &[String],
    done: &mut dyn FnMut(Vec<Slice>, Vec<String>),
) {
    let crowded = |slices: &[Slice]| slices.windows(2).any(|pair| in_one_place(&pair[0], &pair[1]));
    let was_crowded = crowded(&slices);
    for (k, key) in keys.iter().enumerate() {
        let mut groups: Vec<Vec<Slice>> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let values = || slices.iter().map(|slice| (key.of)(&slice.of().keys));
        // A slice that leaves it out is of its neighbour's scan.
        let mut value = values().find(|value| !value.is_empty()).unwrap_or_default();
        for (slice, own) in slices.iter().zip(values()) {
            value = if own.is_empty() { value } else { own };
            let number = *numbers.entry(value).or_insert(groups.len());
            if number == groups.len() {
                groups.push(Vec::new());
            }
            groups[number].push(slice.clone());
        }
        if groups.len() < 2 {
            continue;
        }
        // A key that differs from slice to slice tells no scans apart.
        let scans = groups.iter().all(|group| group.len() > 1);
        let apart = was_crowded && scans && groups.iter().all(|group| !crowded(group));
        if apart || key.by_range && scans && overlap(&groups) {
            for group in groups {
                split(group, &keys[k + 1..], notes, done);
            }
            return;
        }
    }
    done(slices, notes.to_vec());
}

/// Whether the ranges of two groups share more than an end.
fn overlap(groups: &[Vec<Slice>]) -> bool {
    let mut ranges: Vec<(f64, f64)> = groups
        .iter()
        .map(|group| {
            let depth = |slice: Option<&Slice>| slice.map_or(0.0, |slice| stack::depth(slice.of()));
            (depth(group.first()), depth(group.last()))
        })
        .collect();
    ranges.sort_by(|a, b| a.0.total_cmp(&b.0));
    ranges.windows(2).any(|pair| pair[1].0 < pair[0].1 - ONE_PLACE_MM)
}
