//! Outlines of a label in a slice.
//!
//! Lines run midway between the centres of voxels that have the label and of those that have not
//! (marching squares), so that a voxel's centre is inside exactly if the voxel has the label.
//! Voxels that touch at a corner are not joined. A hole becomes part of its outline by a channel
//! of no width, the *keyhole* of PS3.3 section C.8.8.6.3: along a row of voxels, from the hole to
//! the nearest line on its left, which is a corner of that line.

use super::places::Place;

/// A corner in half voxels, column first, from the first voxel's centre.
pub(super) type Corner = [i32; 2];

/// Closed outlines, each with its holes.
///
/// `has` tells whether voxel `(row, column)` has the label; `place` holds all that have.
pub(super) fn outlines(has: impl Fn(usize, usize) -> bool, place: &Place) -> Vec<Vec<Corner>> {
    if place.is_empty() {
        return Vec::new();
    }
    let field = Field::new(has, place);
    let lines = field.lines();
    field.joined(&lines).iter().map(|line| straightened(line)).collect()
}

struct Field<F> {
    has: F,
    top: i32,
    left: i32,
    height: i32,
    width: i32,
}

/// No corner begins a line here.
const NONE: [i8; 2] = [0; 2];

impl<F: Fn(usize, usize) -> bool> Field<F> {
    fn new(has: F, place: &Place) -> Self {
        Self {
            has,
            top: place.rows.start as i32,
            left: place.columns.start as i32,
            height: place.rows.len() as i32,
            width: place.columns.len() as i32,
        }
    }

    /// Whether a voxel counted from the place's first one has the label.
    fn at(&self, y: i32, x: i32) -> bool {
        (0..self.height).contains(&y)
            && (0..self.width).contains(&x)
            && (self.has)((self.top + y) as usize, (self.left + x) as usize)
    }

    /// Number of a corner, in half voxels from the place's first voxel. Of its two coordinates one is
    /// even and one is odd, so that half of the columns say all.
    fn index(&self, [x, y]: Corner) -> usize {
        let [x, y, width] = [x + 2, y + 2, self.width + 2].map(|n| n as usize);
        y * width + x / 2
    }

    /// All lines, the label on their right as rows go down: outlines clockwise, holes the other
    /// way. In the order in which their first corner is met row by row.
    fn lines(&self) -> Vec<Vec<Corner>> {
        // For each corner the step to the next one.
        let mut steps = vec![NONE; self.index([2 * self.width, 2 * self.height]) + 1];
        let mut starts = Vec::new();
        for y in -1..self.height {
            let (mut a, mut d) = (false, false);
            for x in -1..self.width {
                let (b, c) = (self.at(y, x + 1), self.at(y + 1, x + 1));
                for ([x0, y0], step) in cell([a, b, c, d]) {
                    let from = [2 * x + x0, 2 * y + y0];
                    steps[self.index(from)] = step;
                    starts.push(from);
                }
                (a, d) = (b, c);
            }
        }
        let mut lines = Vec::new();
        for start in starts {
            let mut line = Vec::new();
            let mut at = start;
            loop {
                let step = std::mem::replace(&mut steps[self.index(at)], NONE);
                if step == NONE {
                    break;
                }
                line.push(at);
                at = [at[0] + i32::from(step[0]), at[1] + i32::from(step[1])];
            }
            if !line.is_empty() {
                lines.push(line);
            }
        }
        let moved = |[x, y]: Corner| [x + 2 * self.left, y + 2 * self.top];
        lines.iter().map(|line| line.iter().copied().map(moved).collect()).collect()
    }

    /// Outlines with their holes.
    fn joined(&self, lines: &[Vec<Corner>]) -> Vec<Vec<Corner>> {
        // At which corner of another line which hole begins, and with which of its corners.
        let mut channels = std::collections::HashMap::new();
        let (holes, outer): (Vec<usize>, Vec<usize>) =
            (0..lines.len()).partition(|&k| twice_area(&lines[k]) < 0);
        for &hole in &holes {
            // The leftmost corner lies between two voxels of a row: the one on its left has the
            // label, and so have those before it up to the next line.
            let Some(first) = (0..lines[hole].len()).min_by_key(|&k| lines[hole][k]) else {
                continue;
            };
            let [x, y] = lines[hole][first];
            let mut left = (x - 1) / 2;
            while left > self.left && (self.has)((y / 2) as usize, (left - 1) as usize) {
                left -= 1;
            }
            channels.insert([2 * left - 1, y], (hole, first));
        }
        outer.iter().map(|&k| with_holes(k, lines, &channels)).collect()
    }
}

/// A line with the holes whose channels begin at its corners, and those of the holes.
fn with_holes(
    line: usize,
    lines: &[Vec<Corner>],
    channels: &std::collections::HashMap<Corner, (usize, usize)>,
) -> Vec<Corner> {
    let mut result = Vec::new();
    // Lines being followed: which, from which corner, how many corners so far.
    //
    // An outline is met first at a voxel with none above it and none on its left, and so begins with a
    // diagonal. It is told from the end of that on: the first corner and the last then differ in both
    // directions of the plane, for some readers (plastimatch) compare them in two of three directions
    // to tell whether the last is the first once more.
    let mut stack = vec![(line, 1, 0)];
    while let Some((line, first, done)) = stack.pop() {
        let corners = &lines[line];
        // A hole ends where it began, and so does the channel to it.
        let len = corners.len() + usize::from(!stack.is_empty());
        if done == len {
            if let Some((outer, start, k)) = stack.last() {
                let corners = &lines[*outer];
                result.push(corners[(start + k - 1) % corners.len()]);
            }
            continue;
        }
        let corner = corners[(first + done) % corners.len()];
        result.push(corner);
        stack.push((line, first, done + 1));
        // The first corner of a hole is not met again as the begin of another channel.
        if done < corners.len()
            && let Some(&(hole, start)) = channels.get(&corner)
        {
            stack.push((hole, start, 0));
        }
    }
    result
}

/// A corner of a cell and the step from it to another one.
type Piece = (Corner, [i8; 2]);

/// Pieces of lines in the cell between four voxels: left above, right above, right below, left
/// below. Corners are in half voxels from the first; the label is on the right hand, as seen with
/// rows going down.
fn cell(corners: [bool; 4]) -> impl Iterator<Item = Piece> {
    const TOP: Corner = [1, 0];
    const RIGHT: Corner = [2, 1];
    const BOTTOM: Corner = [1, 2];
    const LEFT: Corner = [0, 1];
    let pieces: [Option<(Corner, Corner)>; 2] = match corners.map(u8::from) {
        [1, 0, 0, 0] => [Some((TOP, LEFT)), None],
        [0, 1, 0, 0] => [Some((RIGHT, TOP)), None],
        [0, 0, 1, 0] => [Some((BOTTOM, RIGHT)), None],
        [0, 0, 0, 1] => [Some((LEFT, BOTTOM)), None],
        [1, 1, 0, 0] => [Some((RIGHT, LEFT)), None],
        [0, 1, 1, 0] => [Some((BOTTOM, TOP)), None],
        [0, 0, 1, 1] => [Some((LEFT, RIGHT)), None],
        [1, 0, 0, 1] => [Some((TOP, BOTTOM)), None],
        [1, 0, 1, 0] => [Some((TOP, LEFT)), Some((BOTTOM, RIGHT))],
        [0, 1, 0, 1] => [Some((RIGHT, TOP)), Some((LEFT, BOTTOM))],
        [0, 1, 1, 1] => [Some((LEFT, TOP)), None],
        [1, 0, 1, 1] => [Some((TOP, RIGHT)), None],
        [1, 1, 0, 1] => [Some((RIGHT, BOTTOM)), None],
        [1, 1, 1, 0] => [Some((BOTTOM, LEFT)), None],
        _ => [None, None],
    };
    pieces
        .into_iter()
        .flatten()
        .map(|(from, to)| (from, [(to[0] - from[0]) as i8, (to[1] - from[1]) as i8]))
}

/// Twice the area, positive where corners go round clockwise as seen with rows going down.
fn twice_area(line: &[Corner]) -> i64 {
    let next = line.iter().cycle().skip(1);
    line.iter()
        .zip(next)
        .map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1]))
        .sum()
}

/// Without the corners where nothing turns.
fn straightened(line: &[Corner]) -> Vec<Corner> {
    let n = line.len();
    let turns = |k: usize| {
        let (before, here, after) = (line[(k + n - 1) % n], line[k], line[(k + 1) % n]);
        let (a, b) =
            ([here[0] - before[0], here[1] - before[1]], [after[0] - here[0], after[1] - here[1]]);
        let (cross, along) = (a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1]);
        cross != 0 || along < 0
    };
    (0..n).filter(|&k| turns(k)).map(|k| line[k]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voxels whose centres are inside, by crossings of a ray, every line counting.
    fn rasterized(lines: &[Vec<Corner>], rows: usize, columns: usize) -> Vec<bool> {
        let mut inside = vec![false; rows * columns];
        for (k, inside) in inside.iter_mut().enumerate() {
            let (x, y) = ((2 * (k % columns)) as f64, (2 * (k / columns)) as f64 + 1e-6);
            for line in lines {
                for (a, b) in line.iter().zip(line.iter().cycle().skip(1)) {
                    let [[ax, ay], [bx, by]] = [a, b].map(|p| p.map(f64::from));
                    if (ay > y) != (by > y) && ax + (y - ay) / (by - ay) * (bx - ax) > x {
                        *inside = !*inside;
                    }
                }
            }
        }
        inside
    }

    /// Whether first and last corner differ in both directions.
    fn begins_as_it_should(line: &[Corner]) -> bool {
        let (first, last) = (line[0], line[line.len() - 1]);
        first[0] != last[0] && first[1] != last[1]
    }

    fn check(picture: &[&str], outlines_expected: usize) {
        let (rows, columns) = (picture.len(), picture[0].len());
        let has = |y: usize, x: usize| picture[y].as_bytes()[x] == b'#';
        let place = Place { rows: 0..rows, columns: 0..columns };
        let wanted: Vec<bool> =
            (0..rows * columns).map(|k| has(k / columns, k % columns)).collect();
        let lines = outlines(has, &place);
        assert_eq!(rasterized(&lines, rows, columns), wanted, "{picture:?}");
        assert_eq!(lines.len(), outlines_expected, "{picture:?}");
        assert!(lines.iter().all(|line| line.len() >= 4 && twice_area(line) > 0));
        assert!(lines.iter().all(|line| begins_as_it_should(line)), "{picture:?}: {lines:?}");
    }

    #[test]
    fn centres_are_inside_exactly_where_the_label_is() {
        check(&["#"], 1);
        check(&["##", "##"], 1);
        check(&["#.", ".#"], 2);
        check(&["###", "#.#", "###"], 1);
        check(&["#####", "#.#.#", "#####"], 1);
        check(&["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"], 2);
        check(&["#######", "#.#.#.#", "#######", "##.#.##", "#######", "#.#.#.#", "#######"], 1);
        check(&["....", ".#..", "..#.", "...."], 2);
        check(&["####", "#..#", "#.##", "####"], 1);
        check(&["####", "#.##", "##.#", "####"], 1);
    }

    #[test]
    fn corners_of_the_largest_slice_have_numbers_of_their_own() {
        let size = usize::from(u16::MAX);
        let field = Field::new(|_, _| true, &Place { rows: 0..size, columns: 0..size });
        let end = 2 * i32::from(u16::MAX) - 1;
        let row = |y: i32| {
            let first = y.rem_euclid(2) - 1;
            [first, first + 2, end - 1 + y.rem_euclid(2)].map(|x| field.index([x, y]))
        };
        let numbers: Vec<usize> = [-1, 0, 1, end - 1, end].into_iter().flat_map(row).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(numbers[14] > i32::MAX as usize);
    }

    #[test]
    fn pictures_of_noise_come_back() {
        let mut state = 1_u32;
        for round in 0..300 {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 24
            };
            let filled = 40 + round % 200;
            let lines: Vec<String> = (0..9)
                .map(|_| (0..11).map(|_| if next() < filled { '#' } else { '.' }).collect())
                .collect();
            let picture: Vec<&str> = lines.iter().map(String::as_str).collect();
            let has = |y: usize, x: usize| picture[y].as_bytes()[x] == b'#';
            let place = Place { rows: 0..9, columns: 0..11 };
            let wanted: Vec<bool> = (0..99).map(|k| has(k / 11, k % 11)).collect();
            let found = outlines(has, &place);
            assert_eq!(rasterized(&found, 9, 11), wanted, "{picture:#?}");
            assert!(found.iter().all(|line| begins_as_it_should(line)), "{picture:#?}");
        }
    }
}
