use super::*;
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Pickle> {
    Pickle::parse(bytes.to_vec(), Allowance::default())
}

fn json(bytes: &[u8]) -> String {
    let pickle = parse(bytes).expect("a pickle");
    pickle.json(pickle.root()).map_or_else(|| "nothing".into(), |value| value.to_string())
}

#[test]
fn values_of_every_protocol_are_read() {
    // (what Python has, its pickle)
    let cases: [(&str, &[u8], &str); 14] = [
        ("protocol 0 list", b"(lp0\nI1\naI01\naF2.5\naVtext\np1\naNa.", r#"[1,true,2.5,"text",null]"#),
        ("protocol 0 dict", b"(dp0\nS'a'\nL12L\ns.", r#"{"a":12}"#),
        ("binary integers", b"\x80\x02(K\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x02\x00\x80t.", "[255,65535,-1,-32768]"),
        ("long of no bytes", b"\x80\x02\x8a\x00.", "0"),
        ("binary float", b"G\x3f\xf8\x00\x00\x00\x00\x00\x00.", "1.5"),
        ("short text, framed", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01z\x94.", r#""z""#),
        ("small tuples", b"\x80\x02NK\x01K\x02\x86\x85\x86.", r"[null,[[1,2]]]"),
        ("memo", b"\x80\x02]q\x00(h\x00\x85K\x01e0h\x00K\x02a0K\x03.", "3"),
        ("set", b"\x80\x04\x8f(K\x01K\x02\x90.", "[1,2]"),
        ("frozenset", b"\x80\x04(K\x01\x91.", "[1]"),
        ("set of protocol 2", b"\x80\x02c__builtin__\nset\n]K\x05a\x85R.", "[5]"),
        ("ordered dict", b"\x80\x02ccollections\nOrderedDict\n)RX\x01\x00\x00\x00kK\x07s.", r#"{"k":7}"#),
        (
            "ordered dict of pairs",
            b"\x80\x02ccollections\nOrderedDict\n](]X\x01\x00\x00\x00kaK\x07ae\x85R.",
            r#"{"k":7}"#,
        ),
        (
            "numpy scalar",
            b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x06scalar\x93\x8c\x05numpy\x8c\x05dtype\x93\
              \x8c\x02i8K\x00K\x01\x87RC\x08\x02\x00\x00\x00\x00\x00\x00\x00\x86R.",
            "2",
        ),
    ];
    for (case, bytes, expected) in cases {
        assert_eq!(json(bytes), expected, "{case}");
    }
}

#[test]
fn hostile_names_are_refused_by_name() {
    // (what would happen, the pickle, what the message names)
    let cases: [(&str, &[u8], &str); 8] = [
        ("a command", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", "os.system"),
        ("its C name", b"cposix\nsystem\n(S'id'\ntR.", "posix.system"),
        ("an instance", b"(S'id'\nios\nsystem\n.", "os.system"),
        ("a process", b"csubprocess\nPopen\n(S'id'\ntR.", "subprocess.Popen"),
        ("code", b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        ("an attribute", b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
        ("a download", b"ctorch.hub\nload\n.", "torch.hub.load"),
        ("a submodule", b"cimportlib.util\nfind_spec\n.", "importlib.util.find_spec"),
    ];
    for (case, bytes, named) in cases {
        let error = parse(bytes).expect_err(case).to_string();
        assert!(error.contains(named), "{case}: {error}");
    }
}

#[test]
fn unknown_names_stay_names() {
    let bytes = b"\x80\x02cmy.trainer\nSettings\n)\x81}X\x01\x00\x00\x00aK\x01sb.";
    let pickle = parse(bytes).expect("a pickle");
    assert!(pickle.json(pickle.root()).is_none());
    assert_eq!(pickle.describe(pickle.root()), "an object of my.trainer.Settings");
}

#[test]
fn broken_pickles_are_errors() {
    let cases: [(&str, &[u8]); 18] = [
        ("nothing", b""),
        ("no result", b"."),
        ("a value too few", b"\x80\x02\x86."),
        ("no end", b"\x80\x02N"),
        ("protocol 9", b"\x80\x09N."),
        ("a text of 4 GB", b"X\xff\xff\xff\xffa."),
        ("a text of 2^63 bytes", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa."),
        ("a long of 2^31 bytes", b"\x8b\xff\xff\xff\x7f\x01."),
        ("bytes of 2^64", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa."),
        ("an unknown memo", b"h\x05."),
        ("no mark", b"t."),
        ("a key without value", b"}(K\x01u."),
        ("a list of a number", b"K\x01K\x02a."),
        ("a call of a number", b"K\x01)R."),
        ("arguments of a number", b"ca\nb\nK\x01R."),
        ("an extension", b"\x82\x01."),
        ("a buffer outside", b"\x97."),
        ("below a mark", b"K\x01(a."),
    ];
    for (case, bytes) in cases {
        assert!(parse(bytes).is_err(), "{case}");
    }
}

#[test]
fn nesting_cycles_and_bombs_take_no_stack_and_little_memory() {
    // A million lists, each in the next.
    let mut nested = vec![b']'; 1 << 20];
    nested.extend(vec![b'a'; (1 << 20) - 1]);
    nested.push(b'.');
    assert_eq!(json(&nested), "nothing");
    // A list that holds itself.
    assert_eq!(json(b"\x80\x02]q\x00h\x00a."), "nothing");
    // A dictionary as its own key.
    assert_eq!(json(b"}q\x00h\x00K\x01s."), "nothing");
    // Doubling: 2^60 numbers if they were written out.
    let mut bomb = b"\x80\x02K\x01".to_vec();
    for _ in 0..60 {
        bomb.extend(b"2\x86");
    }
    bomb.push(b'.');
    assert_eq!(json(&bomb), "nothing");
    // A text of 100 000 bytes in 60 000 places.
    let mut text = b"(X\xa0\x86\x01\x00".to_vec();
    text.extend(vec![b'x'; 100_000]);
    text.extend(b"q\x00");
    text.extend(b"h\x00".repeat(60_000));
    text.extend(b"l.");
    assert_eq!(json(&text), "nothing");
    // A list of 60 000 numbers, copied 1000 times.
    let mut copies = b"(".to_vec();
    copies.extend(b"K\x01".repeat(60_000));
    copies.extend(b"lq\x00");
    copies.extend(b"cbuiltins\nset\nh\x00\x85R".repeat(1000));
    copies.push(b'.');
    assert!(parse(&copies).is_err());
    // Stack and memo that only grow.
    let mut tower = b"N".to_vec();
    tower.extend(vec![b'2'; 20_000_000]);
    assert!(parse(&tower).is_err());
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(pickle) = parse(&bytes) {
            let _ = pickle.json(pickle.root());
            let _ = pickle.describe(pickle.root());
        }
    }

    #[test]
    fn opcodes_in_any_order_never_panic(
        picks in proptest::collection::vec(0..OPCODES.len(), 0..60),
    ) {
        let mut bytes: Vec<u8> = picks.iter().flat_map(|&k| OPCODES[k]).copied().collect();
        bytes.push(b'.');
        if let Ok(pickle) = parse(&bytes) {
            let _ = pickle.json(pickle.root());
            let _ = pickle.items(pickle.root());
            let _ = pickle.lookup(pickle.root(), "k");
        }
    }
}

/// Whole instructions, so that random programs get somewhere.
const OPCODES: &[&[u8]] = &[
    b"(",
    b"0",
    b"1",
    b"2",
    b"N",
    b"K\x01",
    b"]",
    b"}",
    b")",
    b"l",
    b"d",
    b"t",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"o",
    b"Q",
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x92",
    b"\x93",
    b"\x94",
    b"q\x00",
    b"h\x00",
    b"X\x01\x00\x00\x00k",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nSize\n",
    b"c__builtin__\nset\n",
    b"C\x01k",
];

/// `{a: 1, skipped: <value>, b: <last>}`.
fn three(value: &[u8], last: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[b'X', text.len() as u8, 0, 0, 0], text.as_bytes()].concat();
    let parts = [
        b"\x80\x02}q\x00(".to_vec(),
        text("a"),
        b"q\x01K\x01".to_vec(),
        text("skipped"),
        b"q\x02".to_vec(),
        value.to_vec(),
        text("b"),
        b"q\x09".to_vec(),
        last.to_vec(),
        b"u.".to_vec(),
    ];
    parts.concat()
}

#[test]
fn unwanted_values_are_not_made() {
    // (what it is, the pickle of the unwanted value)
    let cases: [(&str, &[u8]); 6] = [
        ("a number", b"K\x07"),
        ("a list", b"]q\x03(K\x01]K\x02ae"),
        ("a dictionary", b"}q\x03(X\x01\x00\x00\x00bK\x01u"),
        ("nested tuples", b"((K\x01K\x02tK\x03\x86t"),
        (
            "a scalar of numpy",
            b"cnumpy.core.multiarray\nscalar\nq\x03cnumpy\ndtype\nq\x04X\x02\x00\x00\x00f8K\x00K\x01\
              \x87q\x05Rq\x06(K\x03X\x01\x00\x00\x00<NNNtbC\x08\x00\x00\x00\x00\x00\x00\x00\x00\x86Rq\x07",
        ),
        ("an object with state", b"cmy\nClass\n)\x81}X\x01\x00\x00\x00bK\x01sb"),
    ];
    for (case, value) in cases {
        let pickle = Pickle::parse_only(three(value, b"K\x05"), &["a", "b"], Allowance::default())
            .expect(case);
        let json = pickle.json(pickle.root()).expect("a dictionary").to_string();
        assert_eq!(json, r#"{"a":1,"skipped":null,"b":5}"#, "{case}");
    }
}

#[test]
fn what_a_wanted_value_refers_to_is_made_all_the_same() {
    let bytes = three(b"]q\x03(K\x01K\x02e", b"h\x03");
    let pickle = Pickle::parse_only(bytes, &["a", "b"], Allowance::default()).expect("a pickle");
    let b = pickle.lookup(pickle.root(), "b").expect("b");
    assert_eq!(pickle.json(b).expect("a list").to_string(), "[1,2]");
}

#[test]
fn hostile_names_are_refused_where_nobody_would_look() {
    for value in [
        &b"cos\nsystem\nX\x02\x00\x00\x00id\x85R"[..],
        b"(X\x02\x00\x00\x00idios\nsystem\n",
        b"\x8c\x02os\x8c\x06system\x93X\x02\x00\x00\x00id\x85R",
    ] {
        let error = Pickle::parse_only(three(value, b"K\x05"), &["a"], Allowance::default())
            .expect_err("hostile");
        assert!(error.to_string().contains("os.system"), "{error}");
    }
}

proptest! {
    #[test]
    fn what_can_be_read_whole_can_be_read_in_part(tail in prop::collection::vec(any::<u8>(), 0..80)) {
        let bytes = three(&tail, b"K\x05");
        let (short, whole) = (Pickle::parse_only(bytes.clone(), &["a", "b"], Allowance::default()), parse(&bytes));
        prop_assert!(short.is_ok() || whole.is_err());
    }
}
