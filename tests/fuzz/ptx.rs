//! PTX text: what nvcc made of the kernels with tokens and lines changed, and bytes without any sense.

use crate::{in_time, kernels, on_seeds};
use narrowgauge::sim::Module;
use narrowgauge::verify::Source;

/// A module with a bit of everything that the parser has a rule for.
const SMALL: &str = r#"
.version 8.8
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.const .align 4 .b8 table[8] = {1, 2, 3, 4, 0xff, 6, 7, 8};
.global .align 8 .u64 pointer = table;
.func (.param .b32 result) twice(.param .b32 value)
{
    .reg .b32 %r<3>;
    ld.param.u32 %r1, [value];
    add.u32 %r2, %r1, %r1;
    st.param.b32 [result+0], %r2;
    ret;
}
.visible .entry run(.param .u64 out, .param .align 64 .b8 map[128]) .maxntid 32, 1, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<3>;
    .reg .f32 %f<2>;
    .local .align 4 .b8 scratch[16];
    mov.u32 %r1, %tid.x;
    setp.lt.u32 %p1, %r1, 16;
    @%p1 bra $small;
    mov.f32 %f1, 0f3F800000;
    bra.uni $end;
$small:
    { // a call
    .param .b32 argument;
    st.param.b32 [argument], %r1;
    .param .b32 answer;
    call.uni (answer), twice, (argument);
    ld.param.b32 %r2, [answer];
    }
$end:
    ld.param.u64 %rd1, [out];
    mad.wide.u32 %rd2, %r1, 4, %rd1;
    st.global.v2.b32 [%rd2+-8], {%r2, %r1};
    {
    .reg .pred %q;
    mbarrier.try_wait.parity.shared::cta.b64 %q, [dynamic], 0;
    }
    ret;
}
"#;

/// Tokens that parsers stumble over.
const ODD: [&str; 26] = [
    "",
    ";",
    ",",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "@",
    "@!",
    ":",
    ".",
    "-1",
    "0",
    "4294967296",
    "18446744073709551616",
    "0xffffffffffffffff",
    "0x",
    "0f",
    "0d7ff0000000000000",
    "%r<4294967295>",
    "%r99999999",
    ".b128",
    ".v8",
    "\u{e9}",
];

/// Words, numbers, punctuation and the space between them.
fn tokens(text: &str) -> Vec<&str> {
    let class = |c: char| match c {
        c if c.is_alphanumeric() || "_$%.".contains(c) => 0,
        c if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut found = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| before != class(c) || before == 2) {
            found.push(&text[start..at]);
            start = at;
        }
        before = Some(class(c));
    }
    found.push(&text[start..]);
    found
}

/// One to four edits of tokens or lines.
pub fn edited(text: &str, source: &mut Source) -> String {
    let edits = 1 + source.below(4);
    edited_times(edits, text, source)
}

/// This many edits of tokens or lines.
pub fn edited_times(edits: usize, text: &str, source: &mut Source) -> String {
    let mut text = text.to_owned();
    for _ in 0..edits {
        let lines = source.below(3) == 0;
        let mut parts: Vec<&str> = if lines { text.split_inclusive('\n').collect() } else { tokens(&text) };
        let (at, other) = (source.below(parts.len()), source.below(parts.len()));
        // One of the same kind, so that the text often stays legal.
        let like = |part: &&str| part.chars().next() == parts[at].chars().next() && *part != parts[at];
        let alike = parts[other..].iter().copied().find(like);
        match source.below(9) {
            0 => drop(parts.remove(at)),
            1 => parts.insert(at, parts[other]),
            2 => parts.swap(at, other),
            3 => parts[at] = ODD[source.below(ODD.len())],
            4 => parts.insert(at, ODD[source.below(ODD.len())]),
            5 if source.below(8) == 0 => parts.truncate(at),
            _ => parts[at] = alike.unwrap_or(""),
        }
        text = parts.concat();
        if text.is_empty() {
            text = "\n".to_owned();
        }
    }
    text
}

/// Parses in time; an error has a line of the text.
fn parse(text: String) -> Result<bool, String> {
    let lines = text.lines().count() as u32;
    match in_time("parsing", move || Module::parse(&text))? {
        Ok(_) => Ok(true),
        Err(error) if (1..=lines.max(1)).contains(&error.line) && !error.what.is_empty() => Ok(false),
        Err(error) => Err(format!("of {lines} lines: {error}")),
    }
}

#[test]
fn edited_modules_are_read_or_refused() {
    Module::parse(SMALL).unwrap();
    on_seeds(600, |seed| parse(edited(SMALL, &mut Source::new(seed))).map(drop));
}

#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn edited_kernels_are_read_or_refused() {
    let texts = kernels::texts();
    on_seeds(120, |seed| {
        let mut source = Source::new(seed);
        let (entry, text) = &texts[source.below(texts.len())];
        parse(edited(text, &mut source)).map(drop).map_err(|error| format!("{entry}: {error}"))
    });
}

#[test]
fn noise_is_refused() {
    on_seeds(300, |seed| {
        let mut source = Source::new(seed);
        let printable = source.below(2) == 0;
        let mut byte = || if printable { 32 + source.below(95) as u8 } else { source.below(256) as u8 };
        let bytes: Vec<u8> = (0..400).map(|_| byte()).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let header = ".version 8.8\n.target sm_90a\n.address_size 64\n.visible .entry e()\n{\n";
        parse(text.clone())?;
        parse(format!("{header}{text}\n}}\n")).map(drop)
    });
}

#[test]
fn depth_and_size_are_no_way_in() {
    let body = |text: &str| {
        format!(".version 8.8\n.target sm_90a\n.address_size 64\n.visible .entry e()\n{{\n{text}\nret;\n}}\n")
    };
    for text in [
        body(&"{".repeat(200_000)),
        body(&format!("{}{}", "{".repeat(100_000), "}".repeat(100_000))),
        body(&format!("mov.u32 %r1, {}1{};", "(".repeat(100_000), ")".repeat(100_000))),
        body(&format!("mov.u32 %r1, {}1;", "-".repeat(100_000))),
        body(".reg .b32 %r<4294967295>;"),
        body(".local .align 8 .b8 big[18446744073709551615];"),
        body(".shared .align 8 .b8 big[4294967296][4294967296];"),
        "(".repeat(200_000),
        ".global .b8 x[99999999999999999999];".to_owned(),
        ".version 8.8\n.target sm_90a\n.address_size 64\n.global .align 3 .b8 x[4];".to_owned(),
        "/*".to_owned(),
        "\"".to_owned(),
        ".version".to_owned(),
        String::new(),
    ] {
        parse(text).unwrap();
    }
}
