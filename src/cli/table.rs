//! Plain text tables.

use super::report::shown;

/// Columns padded to their widest cell, two spaces apart; the first row is the heading.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    // A cell is no more than one.
    let clean = |row: &Vec<String>| row.iter().map(|cell| shown(cell).into_owned()).collect();
    let rows: &[Vec<String>] = &rows.iter().map(clean).collect::<Vec<_>>();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|k| rows.iter().filter_map(|row| row.get(k)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text += line.join("  ").trim_end();
        text += "\n";
    }
    text
}
