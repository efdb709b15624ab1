use super::*;
use crate::cli::args::Cli;
use clap::Parser;

const TABLE: &str = include_str!("../../../docs/from-totalsegmentator.md");

fn translate(typed: &str) -> Result<Translated> {
    let words = std::iter::once("fastnnunet").chain(typed.split_whitespace());
    translated(words.map(OsString::from))
}

/// What a line becomes, without the program's name; or why it is refused.
fn line(typed: &str) -> std::result::Result<String, String> {
    let ours = translate(typed).map_err(|error| error.to_string())?;
    let ours: Vec<_> = ours.words[1..].iter().map(|word| word.to_string_lossy()).collect();
    Ok(ours.join(" "))
}

/// Rows of the table: what is typed, and what it becomes.
fn rows() -> Vec<(&'static str, &'static str)> {
    let cells = |row: &'static str| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?, cells.next()?))
    };
    let rows = TABLE.lines().filter(|line| line.starts_with("| `-"));
    rows.filter_map(cells).collect()
}

/// What stands in the first pair of backticks.
fn code(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_default()
}

#[test]
fn every_row_of_the_table_is_what_happens() {
    let base = line("-ta body -o out").expect("a line");
    for (typed, becomes) in rows() {
        let typed = code(typed);
        let found = line(&format!("-ta body -o out {typed}"));
        if becomes.starts_with("refused") {
            let said = found.expect_err(typed);
            let name = typed.split(' ').next().unwrap_or_default().replace('_', "-");
            assert!(said.contains(&name), "{typed}: {said}");
            continue;
        }
        let found = found.unwrap_or_else(|said| panic!("{typed}: {said}"));
        if becomes.starts_with("no effect") {
            assert_eq!(found, base, "{typed}");
            continue;
        }
        let ours = code(becomes);
        assert!(!ours.is_empty(), "{typed}: the second column has the words");
        assert!(format!("{found} ").contains(&format!("{ours} ")), "{typed}: {found}");
    }
}

#[test]
fn the_table_has_a_row_for_every_word() {
    let rows = rows();
    for word in WORDS {
        let names = || std::iter::once(word.short).chain(word.long.iter().copied());
        let has = |(typed, _): &(&str, &str)| {
            let first = code(typed).split(' ').next().unwrap_or_default().replace('_', "-");
            names().any(|name| !name.is_empty() && name == first)
        };
        assert!(rows.iter().any(has), "{}{:?}", word.short, word.long);
    }
}

#[test]
fn words_are_one_each() {
    let all = || WORDS.iter().flat_map(|w| std::iter::once(&w.short).chain(w.long));
    for name in all().filter(|name| !name.is_empty()) {
        assert_eq!(all().filter(|other| *other == name).count(), 1, "{name}");
    }
}

#[test]
fn lines_of_the_readme_are_understood_by_clap() {
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix("TotalSegmentator "));
    let mut count = 0;
    for typed in lines {
        let ours = translate(typed).expect("understood").words;
        let cli = Cli::try_parse_from(ours).unwrap_or_else(|said| panic!("{typed}: {said}"));
        assert!(cli.predict.task.is_some() && cli.predict.mode == cli.predict.task, "{typed}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

#[test]
fn files_without_a_name_lie_where_the_reference_puts_them() {
    // (line, part of ours)
    let cases = [
        ("-ta total -o a/segs -s -p", "--statistics a/segs/statistics.json"),
        ("-ta total -o a/segs -s -p", "--preview a/segs/preview_total.png"),
        ("-ta body -o a/segs.nii.gz -ml -s -p", "--statistics a/statistics.json"),
        ("-ta body -o segs.nii.gz --ml -p", "--preview preview_body.png"),
        ("-ta body -o segs --statistics mine.csv -f", "--statistics mine.csv"),
        ("-s -ta body -o segs", "--statistics segs/statistics.json"),
    ];
    for (typed, part) in cases {
        let found = line(typed).expect(typed);
        assert!(format!("{found} ").contains(&format!("{part} ")), "{typed}: {found}");
    }
}

#[test]
fn without_a_task_words_are_ours() {
    let same = [
        "-i a.nii -m bone -t 4",
        "--mode bone --statistics s.csv -i a -o b",
        "modes total",
        "-i a -o b -m bone --save-probabilities --preview c.png",
    ];
    for typed in same {
        let found = line(typed).expect(typed);
        let sorted = |text: &str| {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        let ours = found.replace("--input", "-i").replace("--output", "-o");
        assert_eq!(sorted(&ours), sorted(typed), "{typed}");
    }
    let found = line("-i a --mode total -f -rs liver spleen").expect("understood");
    assert_eq!(found, "--input a --mode total --quality low --roi liver,spleen");
    let found = line("-i a --mode total -ot dicom").expect("understood");
    assert_eq!(found, "--input a --mode total --output-type dicom", "clap refuses it");
    for typed in ["-i a --mode total -ml", "-i a -bs", "-lt", "-i a -ns 4"] {
        assert!(line(typed).is_err(), "{typed}");
    }
}

#[test]
fn a_line_that_names_nothing_is_of_task_total() {
    for typed in ["-i a -o segs", "-o=segs -i a --fast", "-i a -o b.nii.gz --ml -rs liver"] {
        let found = line(typed).expect(typed);
        assert_eq!(found, line(&format!("-ta total {typed}")).expect("understood"), "{typed}");
        let told = |typed: &str| translate(typed).expect("understood").note;
        assert!(told(typed).is_some() && told(&format!("{typed} -q")).is_none(), "{typed}");
        assert!(told(&format!("{typed} -ta total")).is_none(), "{typed}");
    }
    // With a word of ours, or a file for what would be a folder, it is a line of ours.
    for typed in [
        "-i a -o segs --threads 4",
        "-i a -o b.nii.gz",
        "-i a",
        "-i a --output=b.nii",
        "-i a -o b -m bone",
    ] {
        let found = line(typed).expect(typed);
        assert!(!found.contains("--task"), "{typed}: {found}");
    }
}

#[test]
fn a_task_is_what_it_is_there() {
    // (line, part of ours)
    let cases = [
        ("-ta total", "--mode total --variant v2 --quality high --overwrite"),
        ("--task total -ff", "--quality lowest"),
        ("-ta=lung_vessels", "--mode lung_vessels --overwrite --output-type per-structure"),
        ("-ta total_v3 -ms small", "--variant small --quality high"),
        ("-ta body --models-dir m --skip-existing", "--models-dir m --skip-existing"),
        ("-ta body -ot nifti dicom_seg -o d", "--output-type nifti --output-type dicom-seg"),
        ("-ta body -ot dicom -o d/a.dcm", "--output-type rtstruct --output d/a.dcm"),
        ("-ta body -d gpu:1", "--device cuda:1"),
    ];
    for (typed, part) in cases {
        let found = line(typed).expect(typed);
        assert!(format!("{found} ").contains(&format!("{part} ")), "{typed}: {found}");
    }
    for typed in ["-ta body --mode bone", "-ta", "-ta body -rs", "-ta body -ms tiny"] {
        assert!(line(typed).is_err(), "{typed}");
    }
}
