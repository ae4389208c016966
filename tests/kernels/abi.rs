//! `kernels/abi.h` against `src/device/abi.rs`, as the host's C++ compiler lays the structs out: names, order, types,
//! sizes and offsets of every field, and the constants. Neither side can have something that the other lacks.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

struct Struct<'a> {
    name: &'a str,
    size: &'a str,
    /// Name, Rust type and offset.
    fields: Vec<(&'a str, &'a str, &'a str)>,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn block<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start:?}")) + start.len();
    &text[from..from + text[from..].find(end).unwrap()]
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The structs of the Rust side: each has its table of `parameters!`.
fn structs(rust: &str) -> Vec<Struct<'_>> {
    let tables = rust.split("\nparameters!(").skip(1);
    let parse = |table: &'_ str| {
        let table: &str = &rust[table.as_ptr() as usize - rust.as_ptr() as usize..];
        let head = &table[..table.find('{').unwrap()];
        let mut words = head.split(',').map(str::trim);
        let (name, size) = (words.next().unwrap(), words.next().unwrap());
        let body = block(rust, &format!("struct {name} {{"), "\n}");
        let types = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "));
        let types = types.map(|(field, kind)| (field.split(' ').next_back().unwrap(), kind));
        let offsets = block(table, "{", "}").split(',').filter_map(|pair| pair.trim().split_once(": "));
        let fields = types.zip(offsets).map(|((field, kind), (listed, offset))| {
            assert_eq!(field, listed, "{name}: order of its table");
            (field, kind, offset)
        });
        Struct { name, size, fields: fields.collect() }
    };
    tables.map(parse).collect()
}

fn constants(rust: &str) -> Vec<(&str, &str)> {
    let constants = rust.lines().filter_map(|line| line.strip_prefix("pub const NG_"));
    let split = |line: &'_ str| {
        let line = &rust[line.as_ptr() as usize - rust.as_ptr() as usize - 3..];
        let (name, rest) = line.split_once(": u32 = ").unwrap();
        (name, rest.split_once(';').unwrap().0)
    };
    constants.map(split).collect()
}

/// A translation unit that compiles only where both sides agree.
fn assertions(rust: &str) -> String {
    let mut source = String::from("#include \"abi.h\"\n#include <type_traits>\n");
    // Addresses are pointers where a kernel wants them typed.
    source += "template <class F, class R> constexpr bool is = std::is_same_v<F, R> || \
               (std::is_pointer_v<F> && std::is_same_v<R, uint64_t>);\n";
    for Struct { name, size, fields } in structs(rust) {
        writeln!(source, "static_assert(sizeof({name}) == {size}, \"size\");").unwrap();
        // The compiler refuses a structured binding unless it names every member.
        let bindings: Vec<_> = (0..fields.len()).map(|index| format!("f{index}")).collect();
        writeln!(source, "void all({name}& p) {{ auto& [{}] = p; }}", bindings.join(", ")).unwrap();
        for (field, kind, offset) in fields {
            let (element, count) = match kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
                Some(array) => array.split_once("; ").map(|(kind, n)| (kind, format!("[{n}]"))).unwrap(),
                None => (kind, String::new()),
            };
            let element = match element {
                "u32" => "uint32_t",
                "i32" => "int32_t",
                "u64" => "uint64_t",
                "i64" => "int64_t",
                "f32" => "float",
                "NgTensorMap" => "NgTensorMap",
                other => panic!("{name}::{field}: what is {other} in C++?"),
            };
            writeln!(source, "static_assert(__builtin_offsetof({name}, {field}) == {offset}, \"offset\");")
                .unwrap();
            writeln!(source, "static_assert(is<decltype({name}::{field}), {element}{count}>, \"type\");")
                .unwrap();
        }
    }
    for (name, value) in constants(rust) {
        writeln!(source, "static_assert({name} == {}, \"value\");", value.replace('_', "")).unwrap();
    }
    source
}

/// The compiler's complaint about `source` beside this `header`; `None` without a compiler for C++.
fn complaint(source: &str, header: &str) -> Option<Result<(), String>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("abi.h"), header).unwrap();
    let mut compiler = Command::new("c++")
        .args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-", "-I"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(log) })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[test]
fn both_sides_have_the_same_names() {
    let (rust, header) = (read("src/device/abi.rs"), without_comments(&read("kernels/abi.h")));
    let declared =
        header.split("struct ").skip(1).filter_map(|text| words(text).find(|w| w.starts_with("Ng")));
    let here: BTreeSet<_> = structs(&rust).iter().map(|item| item.name).chain(["NgTensorMap"]).collect();
    assert!(here.len() > 15, "{here:?}");
    assert_eq!(declared.collect::<BTreeSet<_>>(), here);
    // The columns of the latent are a tensor's extent on the host, and no parameter.
    let host: BTreeSet<_> = constants(&rust).iter().map(|(name, _)| *name).chain(["NG_MLA_LATENT"]).collect();
    let kernel: BTreeSet<_> = words(&header).filter(|word| word.starts_with("NG_")).collect();
    assert_eq!(kernel, host);
}

#[test]
fn the_compiler_lays_both_sides_out_alike() {
    let (rust, header) = (read("src/device/abi.rs"), read("kernels/abi.h"));
    let source = assertions(&rust);
    let Some(result) = complaint(&source, &header) else {
        eprintln!("SKIPPED: there is no C++ compiler named c++");
        return;
    };
    result.unwrap();
    // And it notices what could drift without changing a size.
    let drifts = [
        ("float epsilon;", "uint32_t epsilon;"),
        (
            "uint64_t x, positions, cosines, sines, out, status;",
            "uint64_t x, positions, sines, cosines, out, status;",
        ),
        ("uint32_t vocabulary;\n", "uint32_t vocabulary;\n    uint32_t in_the_padding;\n"),
        ("uint32_t sequences;\n    uint32_t queries;", "uint32_t queries;\n    uint32_t sequences;"),
        ("uint32_t reserved[5];", "uint32_t reserved[4]; uint32_t more;"),
        ("NG_STATUS_BAD_SLOT = 1u << 5", "NG_STATUS_BAD_SLOT = 1u << 9"),
    ];
    for (before, after) in drifts {
        assert!(header.contains(before), "{before}");
        // The header's own assertions are a second net: here it is the first one's turn.
        let drifted: Vec<_> = header.replacen(before, after, 1).lines().map(str::to_owned).collect();
        let drifted: Vec<_> = drifted.into_iter().filter(|line| !line.starts_with("static_assert")).collect();
        assert!(
            complaint(&source, &drifted.join("\n")).unwrap().is_err(),
            "not noticed: {before} -> {after}"
        );
    }
}
