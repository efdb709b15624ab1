use super::*;
use crate::registry::Registry;

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/totalseg/results")
}

fn names(folder: &Path) -> Vec<String> {
    let list = fs::read_dir(folder).expect("folder");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("entry").file_name();
    let mut names: Vec<String> =
        list.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_stopped_import_leaves_whole_models_only() {
    let tasks = Registry::embedded().tasks();
    let found = find(&[results()], tasks).expect("trainings");
    let place = tempfile::tempdir().expect("folder");
    let mut begun = 0;
    let mut stop_at_third = |_: &str| {
        begun += 1;
        if begun == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ImportOptions::default();
    let stopped = import(&found, place.path(), tasks, options, &mut stop_at_third);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let there = imports(place.path()).expect("imports");
    assert_eq!(there.len(), 2);
    assert_eq!(names(place.path()).len(), 2, "{:?}", names(place.path()));

    let few: Vec<Found> = found[..4].to_vec();
    let mut go_on = |_: &str| ControlFlow::Continue(());
    let all = import(&few, place.path(), tasks, options, &mut go_on).expect("imported");
    assert_eq!((all.kept.len(), all.made.len()), (2, few.len() - 2));
}

#[test]
fn what_does_not_fit_the_disk_is_refused_before_anything_is_written() {
    let tasks = Registry::embedded().tasks();
    let mut found = find(&[results()], tasks).expect("trainings");
    found.truncate(1);
    found[0].bytes = u64::MAX / 4;
    let place = tempfile::tempdir().expect("folder");
    let mut go_on = |_: &str| ControlFlow::Continue(());
    let error = import(&found, place.path(), tasks, ImportOptions::default(), &mut go_on)
        .expect_err("no disk is that large");
    let Error::Write { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(names(place.path()).is_empty());
}

#[test]
fn data_sets_are_known_by_number_plans_and_configuration() {
    let tasks = Registry::embedded().tasks();
    for (dataset, plans, configuration, models) in [
        ("Dataset297_Any", "nnUNetPlans", "3d_fullres", &["total_low"][..]),
        ("Dataset836_X", "nnUNetResEncUNetLPlans_8", "3d_fullres", &["total_v3_low_small"]),
        ("Dataset297_Any", "nnUNetPlans", "3d_lowres", &[]),
        ("Dataset999_Own", "nnUNetPlans", "3d_fullres", &[]),
        ("no data set", "nnUNetPlans", "3d_fullres", &[]),
    ] {
        let found = named(dataset, ["Trainer", plans, configuration], tasks);
        assert_eq!(found.models, models, "{dataset} {plans} {configuration}");
        assert_eq!(found.task.is_some(), !models.is_empty());
    }
}

#[test]
fn a_model_that_cannot_be_replaced_stays() {
    let place = tempfile::tempdir().expect("folder");
    let at = |name: &str| place.path().join(name);
    for folder in ["model", "room"] {
        fs::create_dir(at(folder)).expect("folder");
    }
    fs::write(at("model/net.onnx"), "old").expect("written");
    let error = put(&at("never made"), &at("model"), &at("room")).expect_err("nothing to put");
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert_eq!(fs::read(at("model/net.onnx")).expect("still there"), b"old");
}
