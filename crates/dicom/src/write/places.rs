//! Where in each slice each label is.

use super::Label;
use crate::volume::{Planes, Source};
use crate::write::Segment;
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns that hold any of a label; empty ranges if none does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Place {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// For each slice, for each segment: where it is.
pub(super) fn places<T: Label>(
    planes: &Planes<'_, T>,
    source: &Source,
    segments: &[&Segment],
) -> Vec<Vec<Place>> {
    let [rows, columns] = source.size;
    (0..source.slices.len())
        .into_par_iter()
        .map(|slice| {
            let found = of_labels(planes.slice(slice), rows, columns);
            let place = |segment: &&Segment| found[usize::from(segment.id)].clone();
            segments.iter().map(place).collect()
        })
        .collect()
}

fn of_labels<T: Label>(labels: &[T], rows: usize, columns: usize) -> Vec<Place> {
    let none = Place { rows: rows..0, columns: columns..0 };
    let mut found = vec![none; 1 << (8 * size_of::<T>())];
    for (row, line) in labels.chunks(columns).enumerate() {
        // Neighbours are mostly alike, and mostly background.
        let mut column = 0;
        for run in line.chunk_by(|a, b| a == b) {
            let end = column + run.len();
            if run[0] != T::default() {
                let place = &mut found[usize::from(run[0].into())];
                place.rows = place.rows.start.min(row)..row + 1;
                place.columns = place.columns.start.min(column)..place.columns.end.max(end);
            }
            column = end;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_all_of_a_label_and_no_more() {
        let labels: [u8; 12] = [0, 0, 3, 0, 1, 0, 0, 3, 0, 0, 0, 0];
        let found = of_labels(&labels, 3, 4);
        assert_eq!(found[3], Place { rows: 0..2, columns: 2..4 });
        assert_eq!(found[1], Place { rows: 1..2, columns: 0..1 });
        assert!(found[2].is_empty());
    }
}
