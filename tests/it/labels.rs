//! The label tables and modes as shipped.

use fastnnunet::model::Side;
use fastnnunet::registry::Registry;
use std::collections::{HashMap, HashSet};

/// The classes of TotalSegmentator v2's task `total`, in the order of their ids from 1.
fn official() -> Vec<String> {
    let mut names: Vec<String> = "spleen kidney_right kidney_left gallbladder liver stomach \
        pancreas adrenal_gland_right adrenal_gland_left lung_upper_lobe_left \
        lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right \
        lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel duodenum colon \
        urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1"
        .split_whitespace()
        .map(String::from)
        .collect();
    for (letter, count) in [('L', 5), ('T', 12), ('C', 7)] {
        names.extend((1..=count).rev().map(|k| format!("vertebrae_{letter}{k}")));
    }
    let rest = "heart aorta pulmonary_vein brachiocephalic_trunk subclavian_artery_right \
        subclavian_artery_left common_carotid_artery_right common_carotid_artery_left \
        brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left \
        superior_vena_cava inferior_vena_cava portal_vein_and_splenic_vein iliac_artery_left \
        iliac_artery_right iliac_vena_left iliac_vena_right humerus_left humerus_right \
        scapula_left scapula_right clavicula_left clavicula_right femur_left femur_right \
        hip_left hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right \
        gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right \
        autochthon_left autochthon_right iliopsoas_left iliopsoas_right brain skull";
    names.extend(rest.split_whitespace().map(String::from));
    for side in ["left", "right"] {
        names.extend((1..=12).map(|k| format!("rib_{side}_{k}")));
    }
    names.extend(["sternum", "costal_cartilages"].map(String::from));
    names
}

#[test]
fn total_is_totalsegmentators() {
    let table = Registry::embedded().table("total").expect("the table");
    let (ids, names): (Vec<u16>, Vec<String>) =
        table.labels.iter().map(|label| (label.id, label.name.clone())).unzip();
    assert_eq!(names, official());
    assert_eq!(ids, (1..=117).collect::<Vec<u16>>());
    // Codes of TotalSegmentator's public mapping, which names structures without their side.
    for (name, code) in [
        ("liver", "10200004"),
        ("spleen", "78961009"),
        ("kidney_left", "64033007"),
        ("aorta", "15825003"),
    ] {
        assert_eq!(table.find(name).expect(name).snomed.as_deref(), Some(code));
    }
}

/// What has a code and a side in its name has the side in its code, once: in words of the concept
/// or as its modifier. Tables of tasks hold names that nobody has given a code.
#[test]
fn sides_are_those_of_names() {
    let mut coded = 0;
    for table in Registry::embedded().tables() {
        for label in table.labels.iter().filter(|label| label.snomed.is_some()) {
            let word =
                |text: &str, side: &str| text.to_lowercase().split(['_', ' ']).any(|w| w == side);
            let meaning = label.meaning.as_deref().unwrap_or_default();
            for (side, text) in [(Side::Left, "left"), (Side::Right, "right")] {
                let said = word(meaning, text) || label.side == Some(side);
                assert_eq!(said, word(&label.name, text), "{} in {}", label.name, table.name);
                assert!(!(word(meaning, text) && label.side == Some(side)), "{} twice", label.name);
            }
            coded += 1;
        }
    }
    assert!(coded > 300, "{coded}");
}

#[test]
fn one_id_is_one_structure_in_each_family() {
    let tasks = &Registry::embedded().tasks().tasks;
    // `bone`, `headneck` and every task but `total` count from 1 on their own.
    let family = |name: &str| {
        if name != "total" && tasks.iter().any(|task| task.name == name) {
            return Some(format!("task {name}"));
        }
        name.split('_').next().filter(|f| ["bone", "headneck"].contains(f)).map(String::from)
    };
    let mut structures: HashMap<(Option<String>, u16), String> = HashMap::new();
    let mut ids: HashMap<(Option<String>, String), u16> = HashMap::new();
    for table in Registry::embedded().tables() {
        let mut colors = HashSet::new();
        for label in &table.labels {
            let (family, name) = (family(&table.name), label.name.clone());
            let known = structures.entry((family.clone(), label.id)).or_insert(name.clone());
            assert_eq!(*known, name, "id {} in {}", label.id, table.name);
            let known = *ids.entry((family, name)).or_insert(label.id);
            assert_eq!(known, label.id, "{} in {}", label.name, table.name);
            let color = label.color.as_ref().expect("a color");
            assert!(colors.insert(color.to_lowercase()), "{color} twice in {}", table.name);
            assert!(label.id < 256, "results stay in bytes");
        }
    }
}

#[test]
fn each_mode_has_the_structures_it_promises() {
    let registry = Registry::embedded();
    let table = |name: &str| {
        let labels = &registry.table(name).expect(name).labels;
        labels.iter().map(|label| label.name.as_str()).collect::<Vec<_>>()
    };
    // (table, number of structures, some of them)
    let cases: [(&str, usize, &[&str]); 10] = [
        ("bone", 1, &["bone"]),
        ("bone_subseg", 3, &["cortical_bone", "trabecular_bone"]),
        ("chest", 48, &["lung_upper_lobe_left", "heart", "rib_right_12", "sternum"]),
        ("abdomen_standard", 13, &["liver", "portal_vein_and_splenic_vein"]),
        ("abdomen_extended", 28, &["liver", "colon", "iliopsoas_left"]),
        ("headneck_9", 9, &["brainstem", "submandibular_gland_left"]),
        ("headneck_30", 30, &["optic_chiasm", "cochlea_left"]),
        ("pelvic", 23, &["urinary_bladder", "hip_left", "sacrum"]),
        ("spine", 28, &["vertebrae_C1", "vertebrae_L6", "vertebrae_T13", "vertebrae_S1", "sacrum"]),
        ("limb", 32, &["femur_left", "tibia_right", "phalanges_hand_left"]),
    ];
    for (name, count, some) in cases {
        let names = table(name);
        assert_eq!(names.len(), count, "{name}");
        assert!(some.iter().all(|wanted| names.contains(wanted)), "{name}");
    }
    // What every bone of the limbs has on one side, it has on the other.
    let limb = table("limb");
    for name in &limb {
        let other =
            name.replace("_left", "_LEFT").replace("_right", "_left").replace("_LEFT", "_right");
        assert!(other != **name && limb.contains(&other.as_str()), "{name}");
    }
    let extended = table("abdomen_extended");
    assert!(table("abdomen_standard").iter().all(|name| extended.contains(name)));
}

#[test]
fn parts_of_total_cover_it_once() {
    let registry = Registry::embedded();
    let total = registry.mode("total").expect("the mode");
    for (variant, table) in [("v2", "total"), ("v3", "total_v3"), ("v3_small", "total_v3")] {
        let is_best = |choice: &&fastnnunet::model::modes::Choice| {
            choice.variant.as_deref() == Some(variant) && choice.quality.as_deref() == Some("high")
        };
        let best = total.choices.iter().find(is_best).expect(variant);
        let parts = &best.models[0].parts;
        assert_eq!(parts.len(), 5, "{variant}");
        let dataset = |name: &str| registry.tasks().dataset(name).expect("a data set");
        let names: Vec<&str> = parts
            .iter()
            .flat_map(|part| &dataset(&part.model).labels)
            .map(String::as_str)
            .collect();
        let table = registry.table(table).expect("a table");
        assert_eq!(names, table.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>());
    }
    let at_26 = |table: &str| registry.table(table).expect("a table").labels[25].name.clone();
    assert_eq!((&*at_26("total"), &*at_26("total_v3")), ("vertebrae_S1", "vertebrae_L6"));
}
