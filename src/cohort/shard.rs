//! Shares of a list of cases, for runs that know nothing of each other.

use crate::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

/// One of several shares: `2/3` is the second of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Which it is, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> usize {
        self.count
    }
}

/// More than anyone starts at once, and few enough to be counted one by one.
const MOST: usize = 1_000_000;

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) && count <= MOST => {
                Ok(Self { index: index - 1, count })
            }
            _ => Err(Error::usage("shard", text, "I/N, from 1/N to N/N, such as 2/3")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

/// For each of the cases, given by id and cost (0 or more), the share that it belongs to, counted from 0:
/// the longest goes first, to the share that has least so far. The same cases give the same shares in
/// whatever order they come.
///
/// # Panics
///
/// If there are no shares.
#[must_use]
pub fn shares(cases: &[(&str, f64)], count: usize) -> Vec<usize> {
    assert!(count > 0, "at least one share");
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by(|&a, &b| {
        let ((first, cost), (second, other)) = (cases[a], cases[b]);
        other.total_cmp(&cost).then_with(|| first.cmp(second))
    });
    // The least comes out first; numbers from 0 on have the order of their bits.
    let mut loads: BinaryHeap<_> = (0..count).map(|share| Reverse((0, share))).collect();
    let mut shares = vec![0; cases.len()];
    for case in order {
        let Some(mut least) = loads.peek_mut() else { break };
        let Reverse((load, share)) = &mut *least;
        *load = (f64::from_bits(*load) + cases[case].1).to_bits();
        shares[case] = *share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_are_counted_from_one() {
        let shard: Shard = "2/3".parse().expect("a shard");
        assert_eq!((shard.index(), shard.count(), shard.to_string()), (1, 3, "2/3".to_owned()));
        for wrong in ["0/3", "4/3", "1/0", "2", "a/b", "1/2/3", "-1/3", "1/1000001", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_come_first() {
        let cases = [("d", 1.0), ("a", 7.0), ("b", 4.0), ("c", 3.0)];
        assert_eq!(shares(&cases, 2), [0, 0, 1, 1]);
        // Of equals, by name.
        assert_eq!(shares(&[("b", 1.0), ("a", 1.0), ("c", 1.0)], 2), [1, 0, 0]);
    }

    /// Each share looked at for each case would be 20 billion looks.
    #[test]
    fn many_cases_are_shared_out_at_once() {
        let ids: Vec<String> = (0..200_000).map(|k| format!("{k:06}")).collect();
        let cases: Vec<(&str, f64)> = ids.iter().map(|id| (id.as_str(), 0.1)).collect();
        assert!(shares(&cases, 100_000).into_iter().eq((0..200_000).map(|k| k % 100_000)));
    }

    proptest! {
        /// Graham's bound: no share is longer than 4/3 of the best there could be.
        #[test]
        fn shares_are_balanced_whatever_the_order(
            costs in proptest::collection::vec(0.0..1e12_f64, 1..60),
            count in 1..9_usize,
            turn in 0..60_usize,
        ) {
            let ids: Vec<String> = (0..costs.len()).map(|k| format!("case {k}")).collect();
            let cases: Vec<(&str, f64)> =
                ids.iter().map(String::as_str).zip(costs.iter().copied()).collect();
            let found = shares(&cases, count);
            prop_assert!(found.iter().all(|&share| share < count));
            let mut turned = cases.clone();
            turned.rotate_left(turn % cases.len());
            let mut again = shares(&turned, count);
            again.rotate_right(turn % cases.len());
            prop_assert_eq!(&found, &again);
            let load = |share| -> f64 {
                let own = cases.iter().zip(&found).filter(|(_, of)| **of == share);
                own.map(|((_, cost), _)| cost).sum()
            };
            let longest = (0..count).map(load).fold(0.0, f64::max);
            let sum: f64 = costs.iter().sum();
            let largest = costs.iter().copied().fold(0.0, f64::max);
            // What any division has at least, but for pairs of cases: list scheduling adds one case.
            let least = (sum / count as f64).max(largest);
            prop_assert!(longest <= (2.0 - 1.0 / count as f64) * least * (1.0 + 1e-9));
        }
    }
}
