//! Programs in C, C++ and C# that use the library as a stranger would: it is installed by `install`,
//! they are compiled here and linked with the shared and the static library, and what they write is
//! compared with what the Rust library answers.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use fastnnunet::infer::Precision;
use fastnnunet::segmenter::Found;
use fastnnunet::volume::{LabelMap, Voxels};
use fastnnunet::{Options, Scan, Segmenter, Source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::{env, fs};
use tempfile::TempDir;

/// Where the library is installed, once for all tests.
static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("installed");
    let test = env::current_exe().expect("this test");
    let profile = test.parent().and_then(Path::parent).expect("two folders above");
    let target = profile.parent().expect("a folder of cargo's");
    // A library's file has a name that others can know only where it was asked for.
    run(Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "fastnnunet-c", "--target-dir"])
        .arg(target)
        .current_dir(here("../..")));
    run(Command::new(here("install")).arg("--from").args([profile, &prefix]));
    prefix
});

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    output
}

/// Compiles a source file, every warning an error, and links it with `libraries`.
fn compiled(folder: &TempDir, compiler: &str, source: &str, libraries: &[String]) -> PathBuf {
    let program = folder.path().join("program");
    let standard = if compiler == "cc" { "-std=c99" } else { "-std=c++11" };
    let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-missing-field-initializers"];
    run(Command::new(compiler)
        .args([standard, "-D_POSIX_C_SOURCE=200809L", "-I"])
        .arg(INSTALLED.join("include"))
        .args(warnings)
        .arg(here(source))
        .arg("-o")
        .arg(&program)
        .args(libraries)
        .arg("-pthread"));
    program
}

/// A program that is linked with the shared library, ready to be run.
fn shared(folder: &TempDir, compiler: &str, source: &str) -> Command {
    let libraries = [format!("-L{}", INSTALLED.join("lib").display()), "-lfastnnunet".to_owned()];
    let mut command = Command::new(compiled(folder, compiler, source, &libraries));
    command.env("LD_LIBRARY_PATH", INSTALLED.join("lib"));
    command
}

/// What the examples open.
fn opened() -> Segmenter {
    let source = Source::Model { name: "selftest".to_owned(), config: None };
    let options = Options::default().precision(Precision::F32);
    Segmenter::open_with(source, options).expect("built in")
}

/// What the examples are called with, what they must write, and how the lines they print begin.
struct Case {
    arguments: Vec<String>,
    labels: Vec<u8>,
    printed: Vec<String>,
}

/// A case of the goldens as raw voxels, and what the Rust library says about the file.
fn case(folder: &TempDir) -> Case {
    let scan = Scan::open(here("../../tests/golden/case/input_plain.nii.gz")).expect("a scan");
    let Voxels::I16(stored, scale) = scan.voxels() else { panic!("stored as int16") };
    assert_eq!((scale.slope, scale.intercept), (1.0, 0.0));
    let raw: Vec<u8> = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
    let file = folder.path().join("ct.raw");
    fs::write(&file, raw).expect("written");
    let result = opened().segment(&scan).expect("segmented");
    let LabelMap::U8(labels) = &result.labels else { panic!("three structures") };
    let found = result.found();
    assert!(found.iter().all(|structure| structure.voxels > 0), "a case that shows something");
    let ([z, y, x], [sz, sy, sx]) = (scan.grid().shape, scan.grid().spacing);
    let mut arguments = vec!["selftest".to_owned(), file.display().to_string()];
    arguments.extend([x, y, z].map(|n| n.to_string()));
    arguments.extend([sx, sy, sz].map(|s| s.to_string()));
    let line = |one: &Found| format!("{} {}: {} voxels, ", one.id, one.name, one.voxels);
    let printed = found.iter().map(line).collect();
    Case { arguments, labels: labels.iter().copied().collect(), printed }
}

/// That an example writes the labels that Rust gives.
fn gives_the_same(command: &mut Command, folder: &TempDir, case: &Case) {
    let out = folder.path().join("labels.raw");
    let output = run(command.args(&case.arguments).arg(&out));
    assert!(fs::read(&out).expect("labels") == case.labels, "{command:?}: other labels");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(printed.lines().count(), case.printed.len(), "{printed}");
    for (line, expected) in printed.lines().zip(&case.printed) {
        assert!(line.starts_with(expected.as_str()), "{line}, not {expected}");
    }
}

#[test]
fn the_c_example_gives_the_same_labels() {
    let folder = TempDir::new().expect("a folder");
    let case = case(&folder);
    gives_the_same(&mut shared(&folder, "cc", "examples/segment.c"), &folder, &case);
}

#[test]
fn the_program_of_the_docs_writes_the_same_file() {
    let example = fs::read_to_string(here("examples/segment_file.c")).expect("the example");
    let docs = fs::read_to_string(here("../../docs/embedding.md")).expect("the docs");
    assert!(docs.contains(&format!("```c\n{example}```")), "docs/embedding.md shows another one");

    let folder = TempDir::new().expect("a folder");
    let input = here("../../tests/golden/case/input_oblique.nii.gz");
    let (of_c, of_rust) = (folder.path().join("c.nii.gz"), folder.path().join("rust.nii.gz"));
    let mut program = shared(&folder, "cc", "examples/segment_file.c");
    run(program.arg("selftest").args([&input, &of_c]));
    let scan = Scan::open(&input).expect("a scan");
    opened().segment(&scan).expect("segmented").save(&of_rust).expect("written");
    assert!(fs::read(of_c).expect("labels") == fs::read(of_rust).expect("labels"));
    let again = program.output().expect("started");
    assert_eq!(again.status.code(), Some(7), "a file that is there stays");
    assert!(String::from_utf8_lossy(&again.stderr).starts_with("cannot write "));
}

#[test]
fn the_static_library_is_whole() {
    let folder = TempDir::new().expect("a folder");
    let case = case(&folder);
    let facts = fs::read_to_string(INSTALLED.join("lib/pkgconfig/fastnnunet.pc")).expect("facts");
    let private = facts.lines().find_map(|line| line.strip_prefix("Libs.private: "));
    let mut libraries = vec![INSTALLED.join("lib/libfastnnunet.a").display().to_string()];
    libraries.extend(private.expect("what it needs").split(' ').map(ToOwned::to_owned));
    let program = compiled(&folder, "cc", "examples/segment.c", &libraries);
    gives_the_same(&mut Command::new(program), &folder, &case);
}

#[test]
fn the_cpp_example_gives_the_same_labels() {
    let folder = TempDir::new().expect("a folder");
    let case = case(&folder);
    gives_the_same(&mut shared(&folder, "c++", "examples/segment.cpp"), &folder, &case);
}

#[test]
fn the_csharp_example_gives_the_same_labels() {
    if Command::new("mcs").arg("--version").output().is_err() {
        assert!(env::var_os("REQUIRE_MONO").is_none(), "no mcs, which Debian's mono-mcs has");
        println!("skipped: no C# compiler here; .ci/embed installs one");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let case = case(&folder);
    let program = folder.path().join("Segment.exe");
    let out = format!("-out:{}", program.display());
    run(Command::new("mcs").args(["-warnaserror", &out]).arg(here("examples/Segment.cs")));
    let mut mono = Command::new("mono");
    mono.env("LD_LIBRARY_PATH", INSTALLED.join("lib")).arg(program);
    gives_the_same(&mut mono, &folder, &case);
}

#[test]
fn what_a_caller_does_wrong_ends_in_a_sentence() {
    let folder = TempDir::new().expect("a folder");
    run(&mut shared(&folder, "cc", "tests/misuse.c"));
}

#[test]
fn the_cpp_header_throws_and_frees() {
    let folder = TempDir::new().expect("a folder");
    run(&mut shared(&folder, "c++", "tests/header.cpp"));
}

/// `.ci/embed` runs a hundred, under Valgrind and with sanitizers too.
#[test]
fn labels_do_not_depend_on_how_voxels_lie() {
    let folder = TempDir::new().expect("a folder");
    run(shared(&folder, "cc", "tests/cases.c").arg("6"));
}

/// The functions that a header declares.
fn declared(header: &str) -> BTreeSet<String> {
    let code = header.lines().filter(|line| !line.starts_with("//"));
    let name = |line: &str| {
        let before = line.split_once('(')?.0;
        let name = before.rsplit([' ', '*']).next()?;
        name.starts_with("fnn_").then(|| name.to_owned())
    };
    code.filter_map(name).collect()
}

/// The symbols that others can see, as `nm` with these arguments lists them.
fn visible(arguments: &[&str], library: &str) -> Vec<String> {
    let library = INSTALLED.join("lib").join(library);
    let output = run(Command::new("nm").args(["--defined-only"]).args(arguments).arg(library));
    let listed = String::from_utf8(output.stdout).expect("UTF-8");
    let rows = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // Address, kind and name; an absolute one is the version itself.
    rows.filter(|row| row.len() == 3 && row[1] != "A").map(|row| row[2].to_owned()).collect()
}

#[test]
fn libraries_show_the_header_s_functions_and_nothing_else() {
    let header = fs::read_to_string(INSTALLED.join("include/fastnnunet.h")).expect("the header");
    let declared = declared(&header);
    assert!(declared.len() > 20 && declared.contains("fnn_segment_images"), "{declared:?}");
    let archived = visible(&["--extern-only"], "libfastnnunet.a");
    assert_eq!(archived.into_iter().collect::<BTreeSet<_>>(), declared);
    let exported = visible(&["--dynamic", "--with-symbol-versions"], "libfastnnunet.so");
    let versioned = declared.iter().map(|name| format!("{name}@@FASTNNUNET_0.1"));
    assert_eq!(exported.into_iter().collect::<BTreeSet<_>>(), versioned.collect());
}
