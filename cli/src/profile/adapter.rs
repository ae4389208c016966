//! How a kernel that this project did not write takes the operands of an operation.
//!
//! A TOML file; every number may be an expression (see [`super::expression`]) in the operation's extents (`m`, `n`, …), `sms`,
//! and of every operand `<name>.dim0`, `<name>.stride0` (in elements), `<name>.elements` and `<name>.bytes`.
//!
//! ```toml
//! entry = "kernel"              # optional where --entry is given or the PTX has one entry
//! grid = ["ceil(n, 64)", "ceil(m, 64)"]
//! block = [256]
//! cluster = [1]                 # optional
//! shared = 98400                # dynamic shared memory in bytes, optional
//!
//! [[scratch]]                   # memory that only the kernel uses, optional; `fill` is a byte, uninitialised without
//! name = "workspace"
//! bytes = "4 * m * n"
//! fill = 0
//!
//! [[parameter]]                 # one for each .param of the entry, in their order
//! bytes = 264                   # optional; by default the fields and nothing else
//! fields = [                    # at the given offsets, or one behind the other, each aligned to its size
//!     { at = 0, map = "a", box = [128, 64], swizzle = 128 },
//!     { at = 128, pointer = "out", offset = 0 },
//!     { u32 = "m" },
//! ]
//! ```
//!
//! A field is one of: `pointer` (an operand or scratch memory, and an `offset` in bytes), `u32`, `i32`, `u64`, `i64`, `f32`
//! (a number), `map` (a tensor map of an operand, 128 bytes). A map has a `box` and may have `swizzle` (0, 32, 64 or 128
//! bytes), `dims` (elements, innermost first; by default the operand's), `strides` (bytes, of all dimensions but the innermost;
//! by default the operand's), `element` (`u8`, `bf16`, `f32`, …; by default the operand's) and `nan_fill`.

use super::expression::evaluate;
use narrowgauge::DType;
use narrowgauge::sim::tensor_map::{Element, Swizzle, TensorMap};
use serde::Deserialize;

/// An adapter for whoever has none yet.
pub const EXAMPLE: &str = r#"grid = ["ceil(m * k, 256)"]    # of one to three numbers, or expressions in the operation's extents
block = [256]
shared = 0                     # bytes of dynamic shared memory
[[parameter]]                  # one for each of the kernel's, in their order
fields = [{ pointer = "a" }]   # an operand, as the first table of the profile names it
[[parameter]]
fields = [{ u32 = "m * k" }]   # or i32, u64, i64, f32
[[parameter]]                  # or a tensor map of an operand
fields = [{ map = "b", box = [64, 8], swizzle = 128 }]
"#;

/// A number or an expression.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Value(i64),
    Expression(String),
}

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    pub entry: Option<String>,
    pub grid: Vec<Number>,
    pub block: Vec<Number>,
    pub cluster: Option<Vec<Number>>,
    pub shared: Option<Number>,
    #[serde(default)]
    pub scratch: Vec<Scratch>,
    #[serde(default, rename = "parameter")]
    pub parameters: Vec<Parameter>,
}

/// Memory that only the kernel uses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    pub name: String,
    pub bytes: Number,
    pub fill: Option<u8>,
}

/// A parameter of the entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    bytes: Option<u32>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Field {
    at: Option<u32>,
    pointer: Option<String>,
    offset: Option<Number>,
    u32: Option<Number>,
    i32: Option<Number>,
    u64: Option<Number>,
    i64: Option<Number>,
    f32: Option<f32>,
    map: Option<String>,
    r#box: Option<Vec<Number>>,
    dims: Option<Vec<Number>>,
    strides: Option<Vec<Number>>,
    swizzle: Option<u32>,
    element: Option<String>,
    nan_fill: bool,
}

/// An operand where the kernel finds it.
#[derive(Debug, Clone)]
pub struct Place {
    pub name: String,
    pub address: u64,
    pub bytes: u64,
    pub dtype: DType,
    /// Empty for scratch memory.
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// What names in expressions and fields mean.
pub struct Names<'a> {
    pub extents: &'a [(&'a str, i64)],
    pub places: &'a [Place],
}

impl Names<'_> {
    fn value(&self, name: &str) -> Option<i64> {
        if let Some((_, value)) = self.extents.iter().find(|(known, _)| *known == name) {
            return Some(*value);
        }
        let (operand, what) = name.split_once('.')?;
        let place = self.places.iter().find(|place| place.name == operand)?;
        let number = |prefix: &str, of: &[usize]| {
            of.get(what.strip_prefix(prefix)?.parse::<usize>().ok()?).map(|&value| value as i64)
        };
        match what {
            "elements" => Some(place.shape.iter().product::<usize>() as i64),
            "bytes" => Some(place.bytes as i64),
            _ => number("dim", &place.shape).or_else(|| number("stride", &place.strides)),
        }
    }

    fn place(&self, name: &str) -> Result<&Place, String> {
        self.places.iter().find(|place| place.name == name).ok_or_else(|| {
            let known: Vec<_> = self.places.iter().map(|place| place.name.as_str()).collect();
            format!("there is no operand `{name}`; there are {}", known.join(", "))
        })
    }

    /// The value of a number.
    pub fn number(&self, number: &Number) -> Result<i64, String> {
        match number {
            Number::Value(value) => Ok(*value),
            Number::Expression(text) => evaluate(text, &|name| self.value(name)),
        }
    }

    /// The value of a number that is not negative and fits `T`.
    pub fn size<T: TryFrom<i64>>(&self, what: &str, number: &Number) -> Result<T, String> {
        let value = self.number(number).map_err(|e| format!("{what}: {e}"))?;
        T::try_from(value).map_err(|_| format!("{what}: {value} is out of range"))
    }

    /// One to three extents; those that are missing are 1.
    pub fn triple(&self, what: &str, numbers: &[Number]) -> Result<[u32; 3], String> {
        if numbers.is_empty() || numbers.len() > 3 {
            return Err(format!("{what}: {} numbers, 1 to 3 are possible", numbers.len()));
        }
        let mut out = [1; 3];
        for (to, number) in out.iter_mut().zip(numbers) {
            *to = self.size(what, number)?;
        }
        Ok(out)
    }
}

impl Adapter {
    /// Reads the text of an adapter.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())
    }
}

impl Parameter {
    /// Its bytes.
    pub fn encode(&self, names: &Names<'_>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for (index, field) in self.fields.iter().enumerate() {
            let value = field.encode(names).map_err(|e| format!("field {index}: {e}"))?;
            let at = match field.at {
                Some(at) => at as usize,
                None => out.len().next_multiple_of(value.len().min(64)),
            };
            if at < out.len() {
                return Err(format!("field {index}: at {at}, inside of the field before it"));
            }
            out.resize(at, 0);
            out.extend(value);
        }
        if let Some(bytes) = self.bytes {
            if out.len() > bytes as usize {
                return Err(format!("the fields take {} bytes of {bytes}", out.len()));
            }
            out.resize(bytes as usize, 0);
        }
        Ok(out)
    }
}

impl Field {
    fn encode(&self, names: &Names<'_>) -> Result<Vec<u8>, String> {
        let mut values = Vec::new();
        if let Some(name) = &self.pointer {
            let offset = self.offset.as_ref().map_or(Ok(0), |offset| names.number(offset))?;
            values.push((names.place(name)?.address.wrapping_add_signed(offset)).to_le_bytes().to_vec());
        }
        if let Some(number) = &self.u32 {
            values.push(names.size::<u32>("u32", number)?.to_le_bytes().to_vec());
        }
        if let Some(number) = &self.i32 {
            values.push(names.size::<i32>("i32", number)?.to_le_bytes().to_vec());
        }
        if let Some(number) = &self.u64 {
            values.push(names.size::<u64>("u64", number)?.to_le_bytes().to_vec());
        }
        if let Some(number) = &self.i64 {
            values.push(names.number(number)?.to_le_bytes().to_vec());
        }
        if let Some(value) = self.f32 {
            values.push(value.to_le_bytes().to_vec());
        }
        if let Some(name) = &self.map {
            values.push(self.tensor_map(names.place(name)?, names)?);
        }
        match values.pop() {
            Some(value) if values.is_empty() => Ok(value),
            Some(_) => Err("more than one value".into()),
            None => Err("no value: one of pointer, u32, i32, u64, i64, f32, map".into()),
        }
    }

    fn tensor_map(&self, place: &Place, names: &Names<'_>) -> Result<Vec<u8>, String> {
        let element = match &self.element {
            Some(name) => element(name)?,
            None => element(&place.dtype.to_string())?,
        };
        let list = |what: &str, numbers: &[Number]| -> Result<Vec<u64>, String> {
            numbers.iter().map(|number| names.size(what, number)).collect()
        };
        let innermost_first = |of: &[usize]| of.iter().rev().map(|&value| value as u64).collect::<Vec<_>>();
        let extents = match &self.dims {
            Some(dims) => list("dims", dims)?,
            None => innermost_first(&place.shape),
        };
        let strides = match &self.strides {
            Some(strides) => list("strides", strides)?,
            None => {
                let bytes = place.dtype.size() as u64;
                innermost_first(&place.strides).into_iter().skip(1).map(|stride| stride * bytes).collect()
            }
        };
        let tile = self.r#box.as_ref().ok_or("a map without a box")?;
        let tile: Vec<u32> = tile.iter().map(|number| names.size("box", number)).collect::<Result<_, _>>()?;
        let map = TensorMap {
            element,
            address: place.address,
            extents,
            strides,
            element_strides: vec![1; tile.len()],
            tile,
            swizzle: match self.swizzle.unwrap_or(0) {
                0 => Swizzle::None,
                32 => Swizzle::B32,
                64 => Swizzle::B64,
                128 => Swizzle::B128,
                other => return Err(format!("swizzle: {other} is not 0, 32, 64 or 128")),
            },
            nan_fill: self.nan_fill,
        };
        Ok(map.encode().map_err(|e| format!("map of {}: {e}", place.name))?.to_vec())
    }
}

fn element(name: &str) -> Result<Element, String> {
    Ok(match name {
        "u8" | "e4m3" | "e5m2" => Element::U8,
        "u16" => Element::U16,
        "u32" => Element::U32,
        "i32" => Element::I32,
        "u64" => Element::U64,
        "i64" => Element::I64,
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "f32" => Element::F32,
        "f64" => Element::F64,
        other => return Err(format!("element: there is no type `{other}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            name: "a".to_owned(),
            address: 0x1000,
            bytes: 4096,
            dtype: DType::Bf16,
            shape: vec![32, 64],
            strides: vec![64, 1],
        }
    }

    fn encode(fields: &str) -> Result<Vec<u8>, String> {
        let text = format!("grid = [1]\nblock = [32]\n[[parameter]]\n{fields}");
        let adapter = Adapter::parse(&text)?;
        adapter.parameters[0].encode(&Names { extents: &[("m", 5)], places: &[place()] })
    }

    #[test]
    fn the_example_is_one() {
        assert_eq!(Adapter::parse(EXAMPLE).unwrap().parameters.len(), 3);
    }

    #[test]
    fn fields_lie_where_they_say_or_behind_each_other() {
        let bytes = encode(
            "bytes = 32\nfields = [{ u32 = \"m + 1\" }, { pointer = \"a\", offset = 16 }, { at = 20, i32 = -1 }]",
        );
        let mut wanted = vec![6, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x10, 0, 0, 0, 0, 0, 0];
        wanted.extend([0; 4]);
        wanted.extend([0xff; 4]);
        wanted.extend([0; 8]);
        assert_eq!(bytes.unwrap(), wanted);
    }

    #[test]
    fn a_map_takes_the_operands_shape() {
        let bytes = encode("fields = [{ map = \"a\", box = [64, 8], swizzle = 128 }]").unwrap();
        let map = TensorMap::decode(&bytes.try_into().unwrap()).unwrap();
        assert_eq!((map.extents, map.strides, map.tile), (vec![64, 32], vec![128], vec![64, 8]));
        assert_eq!((map.element, map.address), (Element::Bf16, 0x1000));
    }

    #[test]
    fn errors_name_the_field() {
        for (fields, wanted) in [
            ("fields = [{ u32 = 1 }, { pointer = \"b\" }]", "field 1: there is no operand `b`; there are a"),
            ("fields = [{ at = 4 }]", "field 0: no value"),
            ("fields = [{ u32 = 1, i64 = 2 }]", "more than one value"),
            ("fields = [{ u32 = -1 }]", "u32: -1 is out of range"),
            ("fields = [{ u32 = \"a.dim2\" }]", "there is no `a.dim2`"),
            ("fields = [{ u64 = 1 }, { at = 4, u32 = 1 }]", "field 1: at 4, inside"),
            ("bytes = 4\nfields = [{ u64 = 1 }]", "the fields take 8 bytes of 4"),
            ("fields = [{ map = \"a\" }]", "a map without a box"),
            ("fields = [{ map = \"a\", box = [64, 8], swizzle = 100 }]", "swizzle: 100"),
            ("fields = [{ map = \"a\", box = [64, 8, 1] }]", "map of a: "),
            ("fields = [{ map = \"a\", box = [64, 8], element = \"f7\" }]", "no type `f7`"),
            ("fields = [{ word = 1 }]", "unknown field `word`"),
            ("field = []", "unknown field `field`"),
        ] {
            let error = encode(fields).unwrap_err();
            assert!(error.contains(wanted), "{fields}: {error}");
        }
        assert!(Adapter::parse("block = [1]").unwrap_err().contains("grid"));
        let names = Names { extents: &[], places: &[] };
        assert!(names.triple("grid", &[]).unwrap_err().contains("grid: 0 numbers"));
    }
}
