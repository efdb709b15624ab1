//! Objects about a series: what is in them, and what is not.
//!
//! That other programs read them as they are meant is judged by `judges/written.py`.

use crate::fixtures::Fixture;
use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use fastnnunet_dicom::write::{
    About, Algorithm, Code, Fresh, Labeling, Model, ObjectOptions, Picture, SegEncoding,
    SegReference, Segment, Written,
};
use fastnnunet_dicom::{Error, LoadOptions, Loaded, ScanOptions, Voxels, scan};
use ndarray::Array3;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

fn loaded(group: &str, name: &str) -> Loaded {
    let fixture = Fixture::unpack(group, name);
    let catalog = scan(fixture.path(), &ScanOptions::default()).expect("a folder");
    catalog.pick(None).expect("one series").load(&LoadOptions::default()).expect("a volume")
}

fn segments() -> Vec<Segment> {
    let kidney = |id, name, side| Segment {
        category: Code::anatomical_structure(),
        kind: Code::sct("64033007", "Kidney"),
        modifier: Some(side),
        ..Segment::named(id, name)
    };
    vec![
        Segment { color: Some([200, 100, 50]), ..kidney(1, "kidney_left", Code::left()) },
        kidney(2, "kidney_right", Code::right()),
        Segment {
            region: Some(Code::sct("56459004", "Foot")),
            region_modifier: Some(Code::left()),
            ..Segment::named(3, "something")
        },
    ]
}

fn algorithm() -> Algorithm {
    let model = Model {
        name: "net".into(),
        sha256: "ab".repeat(32),
        license: "CC-BY-4.0".into(),
        source: String::new(),
    };
    Algorithm {
        name: "fastnnunet".into(),
        version: "1.2.3".into(),
        task: "kidneys".into(),
        models: vec![model],
    }
}

/// Two boxes.
fn labels(shape: [usize; 3]) -> Array3<u8> {
    Array3::from_shape_fn(shape, |(z, y, x)| match (z, y, x) {
        (1..4, 3..9, 2..7) => 1,
        (2..5, 11..16, 9..16) => 2,
        _ => 0,
    })
}

/// Makes a file of an object.
fn save(path: &Path, write: impl FnOnce(File) -> std::io::Result<Written>) -> Written {
    let file = File::create_new(path).expect("a new file");
    write(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Writes an object of each kind and returns them.
fn write_all(folder: &Path, loaded: &Loaded, options: &ObjectOptions) -> Vec<(String, Written)> {
    let (labels, segments, algorithm) = (labels(loaded.grid.shape), segments(), algorithm());
    let about = About { source: &loaded.source, algorithm: &algorithm, options };
    let labeling = Labeling::new(about, labels.view(), &segments).expect("parts that fit");
    let path = |name: &str| folder.join(format!("{name}.dcm"));
    let seg = |name: &str, encoding| save(&path(name), |file| labeling.write_seg(encoding, file));
    let binary = seg("binary", SegEncoding::Binary);
    let labelmap = seg("labelmap", SegEncoding::Labelmap);
    let rtstruct = save(&path("rtstruct"), |file| labeling.write_rtstruct(file));
    let reference = SegReference { written: binary.clone(), encoding: SegEncoding::Binary };
    let sr = |file| labeling.write_sr(|k| loaded.voxels.slice(k), Some(&reference), file);
    let report = save(&path("sr"), sr);
    let picture = Picture { width: 3, height: 1, rgb: &[1, 2, 3, 4, 5, 6, 7, 8, 9] };
    let capture = save(&path("sc"), |file| about.write_sc(picture, file));
    vec![
        ("binary".into(), binary),
        ("labelmap".into(), labelmap),
        ("rtstruct".into(), rtstruct),
        ("sr".into(), report),
        ("sc".into(), capture),
    ]
}

fn open(folder: &Path, name: &str) -> DefaultDicomObject {
    open_file(folder.join(format!("{name}.dcm"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    let element = object.element(tag).unwrap_or_else(|e| panic!("{tag}: {e}"));
    element.to_str().expect("text").trim_end_matches(['\0', ' ']).to_owned()
}

/// Items of a sequence.
fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element(tag).unwrap_or_else(|e| panic!("{tag}: {e}")).items().expect("a sequence")
}

fn is_uid(uid: &str) -> bool {
    let part = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    uid.len() <= 64 && !uid.is_empty() && uid.split('.').all(|p| !p.is_empty() && part(p))
}

#[test]
fn objects_have_the_patient_and_identifiers_of_their_own() {
    let loaded = loaded("regular", "explicit_little");
    let folder = tempfile::tempdir().expect("a folder");
    let written = write_all(folder.path(), &loaded, &ObjectOptions::default());
    let mut seen = BTreeSet::new();
    for (name, written) in &written {
        let object = open(folder.path(), name);
        assert_eq!(text(&object, tags::PATIENT_NAME), "Doe^Jane", "{name}");
        assert_eq!(text(&object, tags::PATIENT_ID), "P1", "{name}");
        assert_eq!(text(&object, tags::STUDY_INSTANCE_UID), loaded.source.study_uid, "{name}");
        assert_eq!(text(&object, tags::SERIES_DATE), "20240102", "{name}");
        let description = text(&object, tags::SERIES_DESCRIPTION);
        assert!(description.ends_with(" kidneys - Research use only"), "{name}: {description}");
        assert_eq!(text(&object, tags::SOP_INSTANCE_UID), written.instance_uid, "{name}");
        assert_eq!(text(&object, tags::SERIES_INSTANCE_UID), written.series_uid, "{name}");
        let meta = object.meta().media_storage_sop_instance_uid().trim_end_matches('\0');
        assert_eq!(meta, written.instance_uid, "{name}");
        for uid in [&written.instance_uid, &written.series_uid] {
            assert!(is_uid(uid) && uid.starts_with("2.25."), "{name}: {uid}");
            assert!(seen.insert(uid.clone()), "{name}: {uid} is another object's too");
        }
        // Of the source's series, nothing but identifiers.
        for tag in [tags::PROTOCOL_NAME, tags::CONVOLUTION_KERNEL, tags::KVP] {
            assert!(object.element(tag).is_err(), "{name} has {tag}");
        }
        let bytes = std::fs::read(folder.path().join(format!("{name}.dcm"))).expect("a file");
        let unset = bytes.windows(8).any(|w| w == b"2.25.000");
        assert!(!unset, "{name} has an identifier that was not put in its place");
    }
}

#[test]
fn the_same_result_gives_the_same_bytes_and_another_one_another_identifier() {
    let loaded = loaded("regular", "explicit_little");
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    let plain = ObjectOptions::default();
    let first = write_all(folders[0].path(), &loaded, &plain);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let second = pool.install(|| write_all(folders[1].path(), &loaded, &plain));
    assert_eq!(first, second);
    for (name, _) in &first {
        let read = |k: usize| std::fs::read(folders[k].path().join(format!("{name}.dcm")));
        assert_eq!(read(0).expect("a file"), read(1).expect("a file"), "{name}");
    }
    // Other voxels: the report's numbers differ, and so the report; the labels do not.
    let mut other = loaded.clone();
    other.voxels = Voxels::F32(other.voxels.to_f32() + 1.0);
    let third = write_all(folders[2].path(), &other, &plain);
    for ((name, a), (_, b)) in first.iter().zip(&third) {
        assert_eq!(a == b, name != "sr", "{name}");
    }
    let fresh = Fresh { salt: [7; 16], date: "20300101".into(), time: "120000".into() };
    let options = ObjectOptions { fresh: Some(fresh), ..Default::default() };
    let fourth = write_all(folders[3].path(), &loaded, &options);
    for ((name, a), (_, b)) in first.iter().zip(&fourth) {
        assert_ne!(a.instance_uid, b.instance_uid, "{name}");
        let object = open(folders[3].path(), name);
        assert_eq!(text(&object, tags::SERIES_DATE), "20300101", "{name}");
        assert_eq!(
            text(&object, tags::STUDY_DATE),
            "20240102",
            "{name}: the study is the source's"
        );
    }
}

#[test]
fn frames_lie_on_the_slices_they_were_made_of() {
    for (group, name) in [("regular", "oblique"), ("odd", "gantry_tilt"), ("regular", "enhanced")] {
        let loaded = loaded(group, name);
        let folder = tempfile::tempdir().expect("a folder");
        write_all(folder.path(), &loaded, &ObjectOptions::default());
        let object = open(folder.path(), "labelmap");
        let frames = items(&object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        assert_eq!(frames.len(), loaded.source.slices.len(), "{name}");
        for (frame, slice) in frames.iter().zip(&loaded.source.slices) {
            let position = &items(frame, tags::PLANE_POSITION_SEQUENCE)[0];
            let position = position.element(tags::IMAGE_POSITION_PATIENT).expect("a position");
            assert_eq!(position.to_multi_float64().expect("numbers"), slice.position, "{name}");
            let derivation = &items(frame, tags::DERIVATION_IMAGE_SEQUENCE)[0];
            let image = &items(derivation, tags::SOURCE_IMAGE_SEQUENCE)[0];
            let uid = text(image, tags::REFERENCED_SOP_INSTANCE_UID);
            assert_eq!(uid, slice.instance_uid, "{name}");
            let number = image.element(tags::REFERENCED_FRAME_NUMBER).ok();
            let number = number.map(|e| e.to_int::<u32>().expect("a number"));
            assert_eq!(number, slice.frame, "{name}");
        }
        assert_eq!(
            text(&object, tags::FRAME_OF_REFERENCE_UID),
            loaded.source.frame_of_reference_uid
        );
    }
}

#[test]
fn segments_say_what_they_are_and_who_made_them() {
    let loaded = loaded("regular", "explicit_little");
    let folder = tempfile::tempdir().expect("a folder");
    write_all(folder.path(), &loaded, &ObjectOptions::default());
    let object = open(folder.path(), "binary");
    let segments = items(&object, tags::SEGMENT_SEQUENCE);
    assert_eq!(segments.len(), 3, "absent ones are described too, so that numbers are ids");
    let side = |segment: &InMemDicomObject| {
        let kind = &items(segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)[0];
        let modifier = kind.element(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE).ok()?;
        Some(text(&modifier.items()?[0], tags::CODE_VALUE))
    };
    let sides: Vec<_> = segments.iter().map(side).collect();
    assert_eq!(sides, [Some("7771000".into()), Some("24028007".into()), None]);
    let maker = &items(&segments[0], tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE)[0];
    assert_eq!(text(maker, tags::ALGORITHM_VERSION), "1.2.3");
    let parameters = text(maker, tags::ALGORITHM_PARAMETERS);
    assert_eq!(parameters, format!("net, sha256 {}, license CC-BY-4.0", "ab".repeat(32)));
}

/// Tracking UIDs of a segmentation, by name.
fn tracked(seg: &InMemDicomObject) -> BTreeMap<String, String> {
    let segments = items(seg, tags::SEGMENT_SEQUENCE).iter();
    segments
        .filter(|segment| segment.element(tags::TRACKING_ID).is_ok())
        .map(|segment| (text(segment, tags::TRACKING_ID), text(segment, tags::TRACKING_UID)))
        .collect()
}

/// Tracking UIDs of a report, by name.
fn reported(report: &InMemDicomObject) -> BTreeMap<String, String> {
    let groups = items(report, tags::CONTENT_SEQUENCE).last().expect("measurements");
    let named = |group: &InMemDicomObject, code: &str| {
        let is = |item: &&InMemDicomObject| {
            let name = &items(item, tags::CONCEPT_NAME_CODE_SEQUENCE)[0];
            text(name, tags::CODE_VALUE) == code
        };
        items(group, tags::CONTENT_SEQUENCE).iter().find(is).expect(code).clone()
    };
    let pair = |group| {
        let (name, uid) = (named(group, "112039"), named(group, "112040"));
        (text(&name, tags::TEXT_VALUE), text(&uid, tags::UID))
    };
    items(groups, tags::CONTENT_SEQUENCE).iter().map(pair).collect()
}

#[test]
fn a_structure_is_tracked_by_one_identifier_in_all_objects_of_a_result() {
    let loaded = loaded("regular", "explicit_little");
    let fresh = Fresh { salt: [7; 16], date: "20300101".into(), time: "120000".into() };
    let mut all = BTreeSet::new();
    for fresh in [None, Some(fresh)] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ObjectOptions { fresh, ..Default::default() };
        write_all(folder.path(), &loaded, &options);
        let of = |name| tracked(&open(folder.path(), name));
        let (binary, report) = (of("binary"), reported(&open(folder.path(), "sr")));
        assert_eq!(of("labelmap"), binary);
        assert_eq!(report.len(), 2, "those that are there");
        assert!(report.iter().all(|(name, uid)| binary[name] == *uid), "{report:?} {binary:?}");
        assert!(binary.values().all(|uid| is_uid(uid)));
        all.extend(binary.into_values());
    }
    assert_eq!(all.len(), 6, "each structure has its own, and each fresh run");
    // The same structure of the same images and models, though other voxels have it.
    let (segments, algorithm, options) = (segments(), algorithm(), ObjectOptions::default());
    let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
    let other = Array3::<u8>::ones(loaded.grid.shape);
    let folder = tempfile::tempdir().expect("a folder");
    let labeling = Labeling::new(about, other.view(), &segments).expect("parts that fit");
    save(&folder.path().join("seg.dcm"), |file| labeling.write_seg(SegEncoding::Binary, file));
    assert!(tracked(&open(folder.path(), "seg")).values().all(|uid| all.contains(uid)));
}

#[test]
fn ids_with_gaps_keep_their_number_in_a_labelmap_and_are_named_in_binary() {
    let loaded = loaded("regular", "explicit_little");
    let folder = tempfile::tempdir().expect("a folder");
    let labels = labels(loaded.grid.shape).mapv(|label| u16::from(label) * 300);
    let segments = [Segment::named(600, "b"), Segment::named(300, "a")];
    for (name, encoding, numbers) in
        [("binary", SegEncoding::Binary, [1, 2]), ("labelmap", SegEncoding::Labelmap, [300, 600])]
    {
        let path = folder.path().join(format!("{name}.dcm"));
        let (algorithm, options) = (algorithm(), ObjectOptions::default());
        let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
        let labeling = Labeling::new(about, labels.view(), &segments).expect(name);
        save(&path, |file| labeling.write_seg(encoding, file));
        let object = open(folder.path(), name);
        let listed = items(&object, tags::SEGMENT_SEQUENCE);
        let listed = &listed[listed.len() - 2..];
        let number = |s: &InMemDicomObject| s.element(tags::SEGMENT_NUMBER).expect("one").to_int();
        assert_eq!(
            listed.iter().map(number).collect::<Result<Vec<u16>, _>>().expect("numbers"),
            numbers
        );
        let described = text(&listed[0], tags::SEGMENT_DESCRIPTION);
        assert_eq!(
            described.starts_with("Label 300"),
            encoding == SegEncoding::Binary,
            "{described}"
        );
    }
}

/// Keywords of all elements, those of items too.
fn keywords(set: &InMemDicomObject, found: &mut BTreeSet<&'static str>) {
    for element in set {
        let tag = element.header().tag;
        let entry = StandardDataDictionary.by_tag(tag).expect("a standard attribute");
        found.insert(entry.alias());
        element.items().into_iter().flatten().for_each(|item| keywords(item, found));
    }
}

#[test]
fn the_conformance_statement_lists_every_attribute_that_is_written() {
    let statement = include_str!("../../../../docs/dicom.md");
    let (_, rest) = statement.split_once("## Attributes").expect("the list");
    let (list, _) = rest.split_once("## Archives").expect("its end");
    let listed: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    for (group, name) in [("regular", "explicit_little"), ("regular", "enhanced_jpeg2000")] {
        let loaded = loaded(group, name);
        let folder = tempfile::tempdir().expect("a folder");
        let mut found = BTreeSet::new();
        for (kind, _) in write_all(folder.path(), &loaded, &ObjectOptions::default()) {
            keywords(&open(folder.path(), &kind), &mut found);
        }
        assert!(found.len() > 100, "{found:?}");
        let unlisted: Vec<_> = found.difference(&listed).collect();
        assert!(unlisted.is_empty(), "docs/dicom.md lacks {unlisted:?}");
    }
}

#[test]
fn an_empty_map_is_an_object_all_the_same() {
    let loaded = loaded("regular", "explicit_little");
    let folder = tempfile::tempdir().expect("a folder");
    let empty = Array3::<u8>::zeros(loaded.grid.shape);
    let path = folder.path().join("empty.dcm");
    let (algorithm, segments, options) = (algorithm(), segments(), ObjectOptions::default());
    let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
    let labeling = Labeling::new(about, empty.view(), &segments).expect("parts that fit");
    save(&path, |file| labeling.write_seg(SegEncoding::Binary, file));
    let frames = text(&open(folder.path(), "empty"), tags::NUMBER_OF_FRAMES);
    assert_eq!(frames, "1");
    save(&folder.path().join("none.dcm"), |file| labeling.write_rtstruct(file));
    assert!(items(&open(folder.path(), "none"), tags::ROI_CONTOUR_SEQUENCE).is_empty());
    let sr = |file| labeling.write_sr(|k| loaded.voxels.slice(k), None, file);
    save(&folder.path().join("sr.dcm"), sr);
    let report = open(folder.path(), "sr");
    let measured = items(&report, tags::CONTENT_SEQUENCE).last().expect("measurements");
    assert!(items(measured, tags::CONTENT_SEQUENCE).is_empty());
}

#[test]
fn numbers_fit_their_decimal_strings_and_contours_their_planes() {
    let loaded = loaded("regular", "oblique");
    let folder = tempfile::tempdir().expect("a folder");
    write_all(folder.path(), &loaded, &ObjectOptions::default());
    let object = open(folder.path(), "rtstruct");
    let slices = &loaded.source.slices;
    let [across, down] = slices[0].orientation;
    let normal = [
        across[1] * down[2] - across[2] * down[1],
        across[2] * down[0] - across[0] * down[2],
        across[0] * down[1] - across[1] * down[0],
    ];
    let depth = |p: &[f64]| p.iter().zip(normal).map(|(p, n)| p * n).sum::<f64>();
    let mut contours = 0;
    for region in items(&object, tags::ROI_CONTOUR_SEQUENCE) {
        for contour in items(region, tags::CONTOUR_SEQUENCE) {
            let data = contour.element(tags::CONTOUR_DATA).expect("data").to_str().expect("text");
            assert!(data.split('\\').all(|number| number.trim().len() <= 16), "{data}");
            let values: Vec<f64> =
                data.split('\\').map(|number| number.trim().parse().expect("a number")).collect();
            let count: usize =
                text(contour, tags::NUMBER_OF_CONTOUR_POINTS).parse().expect("a count");
            assert_eq!(values.len(), 3 * count);
            let image = &items(contour, tags::CONTOUR_IMAGE_SEQUENCE)[0];
            let uid = text(image, tags::REFERENCED_SOP_INSTANCE_UID);
            let slice = slices.iter().find(|slice| slice.instance_uid == uid).expect("a slice");
            let wanted = depth(&slice.position);
            assert!(values.chunks(3).all(|p| (depth(p) - wanted).abs() < 1e-3));
            contours += 1;
        }
    }
    assert_eq!(contours, 6, "two boxes in three slices each");
}

#[test]
fn mistakes_are_found_before_anything_is_written() {
    let loaded = loaded("regular", "explicit_little");
    let (algorithm, options) = (algorithm(), ObjectOptions::default());
    let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
    let labeling = |labels: &Array3<u8>, segments: &[Segment]| {
        Labeling::new(about, labels.view(), segments).map(drop)
    };
    let map = labels(loaded.grid.shape);
    let twice = [Segment::named(1, "a"), Segment::named(1, "b")];
    let cases = [
        ("another shape", labeling(&Array3::zeros([1, 2, 3]), &segments())),
        ("a label of no segment", labeling(&map, &segments()[..1])),
        ("an id twice", labeling(&map, &twice)),
        ("no segment", labeling(&map, &[])),
        ("a segment for the background", labeling(&map, &[Segment::named(0, "none")])),
    ];
    for (case, result) in cases {
        assert!(matches!(result, Err(Error::Usage { .. })), "{case}");
    }
}

#[test]
fn names_in_any_character_set_are_copied_to_the_byte() {
    for name in
        ["charset_iso_ir_192", "charset_iso_ir_144", "charset_iso_2022_ir_87", "charset_gb18030"]
    {
        let fixture = Fixture::unpack("odd", name);
        let source = fixture.path().join("IM0000.dcm");
        let loaded = loaded("odd", name);
        let folder = tempfile::tempdir().expect("a folder");
        let written = write_all(folder.path(), &loaded, &ObjectOptions::default());
        let find = |bytes: &[u8], tag: Tag, explicit: bool| -> Vec<u8> {
            let [g, e] = [tag.group().to_le_bytes(), tag.element().to_le_bytes()];
            let head = [g[0], g[1], e[0], e[1]];
            let at = bytes.windows(4).position(|w| w == head).expect("the element");
            let at = at + if explicit { 6 } else { 4 };
            let len = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            let start = at + if explicit { 2 } else { 4 };
            bytes[start..start + len].to_vec()
        };
        let original = std::fs::read(&source).expect("a slice");
        for (kind, _) in written {
            let bytes = std::fs::read(folder.path().join(format!("{kind}.dcm"))).expect("a file");
            for tag in [tags::PATIENT_NAME, tags::SPECIFIC_CHARACTER_SET] {
                let copy = find(&bytes, tag, kind != "rtstruct");
                assert_eq!(copy, find(&original, tag, true), "{name} {kind} {tag}");
            }
        }
    }
}

#[test]
fn a_source_without_identifiers_gets_the_same_ones_each_time() {
    let (a, b) = (loaded("odd", "no_uids").source, loaded("odd", "no_uids").source);
    for (a, b) in [
        (&a.study_uid, &b.study_uid),
        (&a.series_uid, &b.series_uid),
        (&a.frame_of_reference_uid, &b.frame_of_reference_uid),
        (&a.slices[3].instance_uid, &b.slices[3].instance_uid),
    ] {
        assert_eq!(a, b);
        assert!(is_uid(a), "{a}");
    }
    assert_ne!(a.study_uid, a.series_uid);
}

#[test]
fn labels_of_a_tilted_series_go_back_to_its_slices() {
    let loaded = loaded("odd", "gantry_tilt");
    let [planes, rows, columns] = loaded.grid.shape;
    assert_eq!([planes, columns], [6, 20]);
    assert!(rows > 24, "the upright grid holds all slices");
    // The label of what is bright, made on the grid, must cover what is bright in the slices.
    let bright = loaded.voxels.to_f32().mapv(|hu| u8::from(hu > 300.0));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("seg.dcm");
    let (segments, options) = ([Segment::named(1, "bone")], ObjectOptions::default());
    let algorithm = algorithm();
    let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
    let labeling = Labeling::new(about, bright.view(), &segments).expect("parts that fit");
    save(&path, |file| labeling.write_seg(SegEncoding::Labelmap, file));
    let object = open(folder.path(), "seg");
    let pixels = object.element(tags::PIXEL_DATA).expect("pixels").to_bytes().expect("bytes");
    let upright = self::loaded("regular", "explicit_little");
    let (mut both, mut either) = (0, 0);
    for (label, hu) in pixels.iter().zip(&upright.voxels.to_f32()) {
        both += usize::from(*label == 1 && *hu > 300.0);
        either += usize::from(*label == 1 || *hu > 300.0);
    }
    assert!(both * 10 > either * 9, "{both} of {either}");
}
