//! Where tensors lie in the one memory that a network runs in.
//!
//! Steps and how long each tensor is needed enter; places leave, so that no two tensors that are needed at
//! once overlap. Small ones take parts of what a large one has left.

/// Places are multiples of a cache line.
const LINE: usize = 16;

/// A tensor that takes so many floats, from step `first` to step `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub floats: usize,
    pub first: usize,
    pub last: usize,
}

impl Life {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A place for each of `lives`, and floats of all together: the largest ones choose first, each the
/// lowest place that is free.
pub(super) fn pack(lives: &[Life]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].floats), lives[i].first));
    let mut places = vec![0; lives.len()];
    // Start and end of what is placed, by start.
    let mut placed: Vec<(usize, usize, usize)> = Vec::new();
    for i in order {
        let floats = lives[i].floats.next_multiple_of(LINE);
        let mut at = 0;
        for &(start, end, other) in placed.iter().filter(|taken| lives[taken.2].meets(&lives[i])) {
            debug_assert_ne!(other, i);
            if at + floats <= start {
                break;
            }
            at = at.max(end);
        }
        places[i] = at;
        let taken = (at, at + floats, i);
        let before = placed.partition_point(|other| *other < taken);
        placed.insert(before, taken);
    }
    (places, placed.iter().map(|taken| taken.1).max().unwrap_or(0))
}

/// Parts of `memory`, as many floats from a place as each of `wanted` says. None overlap.
pub(super) fn carve<'a>(memory: &'a mut [f32], wanted: &[(usize, usize)]) -> Vec<&'a mut [f32]> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i]);
    let mut parts: Vec<&mut [f32]> = wanted.iter().map(|_| &mut [][..]).collect();
    let (mut rest, mut start) = (memory, 0);
    for i in order {
        let (place, floats) = wanted[i];
        let (_, from) = rest.split_at_mut(place - start);
        let (part, behind) = from.split_at_mut(floats);
        (parts[i], rest, start) = (part, behind, place + floats);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life() -> impl Strategy<Value = Life> {
        (0..200_usize, 0..12_usize, 0..12_usize).prop_map(|(floats, a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            Life { floats, first, last }
        })
    }

    proptest! {
        #[test]
        fn nothing_that_is_needed_is_overwritten(lives in prop::collection::vec(life(), 0..20)) {
            let (places, all) = pack(&lives);
            for (i, a) in lives.iter().enumerate() {
                prop_assert!(places[i] + a.floats <= all && places[i] % LINE == 0);
                for (j, b) in lives.iter().enumerate().take(i) {
                    let apart = places[i] + a.floats <= places[j] || places[j] + b.floats <= places[i];
                    prop_assert!(apart || !a.meets(b), "{a:?} at {}, {b:?} at {}", places[i], places[j]);
                }
            }
        }
    }

    #[test]
    fn small_tensors_share_what_a_large_one_leaves() {
        let life = |floats, first, last| Life { floats, first, last };
        let lives = [life(64, 0, 1), life(16, 2, 3), life(16, 3, 4), life(64, 5, 5)];
        assert_eq!(pack(&lives), (vec![0, 0, 16, 0], 64));
    }

    #[test]
    fn parts_are_where_they_were_asked_for() {
        let mut memory: Vec<f32> = (0..10_u8).map(f32::from).collect();
        let parts = carve(&mut memory, &[(6, 2), (0, 1), (3, 3), (9, 0)]);
        assert_eq!(parts, [&[6.0, 7.0][..], &[0.0], &[3.0, 4.0, 5.0], &[]]);
    }
}
