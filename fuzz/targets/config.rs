//! Our own JSON: configurations, modes and tables of labels. Two tables have a zero byte between.
#![no_main]

use fastnnunet::model::{ModelConfig, labels, modes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = ModelConfig::from_json(text) {
        let _ = (config.input_channels(), config.output_channels(), config.label_name(1));
    }
    let (first, second) = text.split_once('\0').unwrap_or((text, ""));
    let files = [("a".to_owned(), first.to_owned()), ("b".to_owned(), second.to_owned())];
    let known = labels::parse(&files[..1], &[]).unwrap_or_default();
    let _ = labels::parse(&files[1..], &known);
    let _ = labels::parse(&files, &[]);
    if let Ok(modes) = modes::parse(text) {
        let _ = modes::check_tables(&modes, &known);
        let _ = modes::check_recipes(&modes, &["bone"]);
    }
});
