//! Tensor maps: what `cuTensorMapEncodeTiled` takes, its rules, and a 128-byte form of our own.

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 8-bit, also FP8.
    U8,
    /// 16-bit integer.
    U16,
    /// 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// bfloat16.
    Bf16,
}

const ELEMENTS: [Element; 10] = [
    Element::U8,
    Element::U16,
    Element::U32,
    Element::I32,
    Element::U64,
    Element::I64,
    Element::F16,
    Element::F32,
    Element::F64,
    Element::Bf16,
];

impl Element {
    /// Size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Element::U8 => 1,
            Element::U16 | Element::F16 | Element::Bf16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 => 8,
        }
    }

    /// Whether the type has a NaN.
    pub const fn is_float(self) -> bool {
        matches!(self, Element::F16 | Element::F32 | Element::F64 | Element::Bf16)
    }
}

/// Permutation of 16-byte chunks in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// None.
    None,
    /// Within 32 bytes.
    B32,
    /// Within 64 bytes.
    B64,
    /// Within 128 bytes.
    B128,
}

const SWIZZLES: [Swizzle; 4] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128];

impl Swizzle {
    /// Bytes that the permutation stays within; none without a swizzle.
    pub const fn span(self) -> Option<u32> {
        match self {
            Swizzle::None => None,
            Swizzle::B32 => Some(32),
            Swizzle::B64 => Some(64),
            Swizzle::B128 => Some(128),
        }
    }

    /// Where the byte that would lie at `address` lies: chunk bits 4.. are mixed with row bits 7...
    #[inline]
    pub const fn apply(self, address: u32) -> u32 {
        let mask = match self {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 3,
            Swizzle::B128 => 7,
        };
        address ^ ((address >> 7 & mask) << 4)
    }
}

/// A tiled tensor map. Dimensions are innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap {
    /// Element type.
    pub element: Element,
    /// Address of element (0, …, 0) in global memory.
    pub address: u64,
    /// Elements along each dimension; their number is the rank.
    pub extents: Vec<u64>,
    /// Bytes between neighbours along dimensions 1 and up; dimension 0 is contiguous.
    pub strides: Vec<u64>,
    /// Elements of the box along each dimension.
    pub tile: Vec<u32>,
    /// Step between loaded elements; that of dimension 0 is ignored.
    pub element_strides: Vec<u32>,
    /// Layout in shared memory.
    pub swizzle: Swizzle,
    /// Out-of-bounds elements load as NaN rather than zero.
    pub nan_fill: bool,
}

/// A field of a map, as `tensormap.replace` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Address of the tensor.
    Address,
    /// Rank less one.
    Rank,
    /// Extent of the box along a dimension.
    Tile(usize),
    /// Extent of the tensor along a dimension.
    Extent(usize),
    /// Bytes between neighbours along dimension 1 and up, which is number 0.
    Stride(usize),
    /// Step along a dimension.
    ElementStride(usize),
    /// Element type, by the ISA's number.
    Element,
    /// 0, or 1 to 3 for 32, 64 and 128 bytes.
    Swizzle,
    /// 0 for zero, 1 for NaN.
    Fill,
    /// 0; interleaved layouts are not modelled.
    Interleave,
}

/// Places in [`ELEMENTS`] of the ISA's numbers: two more kinds of f32 are inserted, and two for TF32 follow.
const ELEMENT_TYPES: [u8; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 7, 7];

const MAGIC: [u8; 8] = *b"NGTMAP\x01\x9a";
const MOST_RANK: usize = 5;
/// A box has to fit in a block's shared memory.
const MOST_BOX: u64 = 228 * 1024;

impl TensorMap {
    /// Rank.
    pub fn rank(&self) -> usize {
        self.extents.len()
    }

    /// Elements of the box that a copy moves along dimension `d`.
    #[inline]
    pub fn box_extent(&self, d: usize) -> u32 {
        if d == 0 { self.tile[0] } else { self.tile[d].div_ceil(self.element_strides[d]) }
    }

    /// What out-of-bounds elements load as, repeated over eight bytes.
    pub fn fill_pattern(&self) -> [u8; 8] {
        match (self.nan_fill, self.element) {
            (false, _) => [0; 8],
            (true, Element::F64) => 0x7fff_ffff_ffff_ffffu64.to_le_bytes(),
            (true, Element::F32) => 0x7fff_ffff_7fff_ffffu64.to_le_bytes(),
            (true, _) => 0x7fff_7fff_7fff_7fffu64.to_le_bytes(),
        }
    }

    /// Checks every rule that the driver's encoder has; the error names the field.
    pub fn validate(&self) -> Result<(), String> {
        let rank = self.rank();
        if rank == 0 || rank > MOST_RANK {
            return Err(format!("extents: rank {rank}, which must be 1 to 5"));
        }
        for (field, got, want) in [
            ("strides", self.strides.len(), rank - 1),
            ("tile", self.tile.len(), rank),
            ("element_strides", self.element_strides.len(), rank),
        ] {
            if got != want {
                return Err(format!("{field}: {got} values, but rank {rank} wants {want}"));
            }
        }
        if !self.address.is_multiple_of(16) {
            return Err(format!("address: {:#x} is not a multiple of 16", self.address));
        }
        let mut last = self.address;
        for (d, extent) in self.extents.iter().copied().enumerate() {
            if extent == 0 || extent > 1 << 32 {
                return Err(format!("extents[{d}]: {extent} is not in 1..=2^32"));
            }
            let stride = if d == 0 { u64::from(self.element.bytes()) } else { self.strides[d - 1] };
            if d > 0 && (stride % 16 != 0 || stride >= 1 << 40) {
                return Err(format!("strides[{}]: {stride} is not a multiple of 16 below 2^40", d - 1));
            }
            last = (extent - 1)
                .checked_mul(stride)
                .and_then(|span| last.checked_add(span))
                .ok_or_else(|| format!("extents[{d}]: the tensor leaves the address space"))?;
        }
        for (d, tile) in self.tile.iter().copied().enumerate() {
            if tile == 0 || tile > 256 {
                return Err(format!("tile[{d}]: {tile} is not in 1..=256"));
            }
        }
        for (d, stride) in self.element_strides.iter().copied().enumerate() {
            if d > 0 && (stride == 0 || stride > 8) {
                return Err(format!("element_strides[{d}]: {stride} is not in 1..=8"));
            }
        }
        let row = self.tile[0] * self.element.bytes();
        if !row.is_multiple_of(16) {
            return Err(format!("tile[0]: {} elements are {row} bytes, not a multiple of 16", self.tile[0]));
        }
        if let Some(span) = self.swizzle.span()
            && row > span
        {
            return Err(format!("tile[0]: {row} bytes are more than the {span} of the swizzle"));
        }
        let bytes: u64 = (0..rank).map(|d| u64::from(self.box_extent(d))).product::<u64>()
            * u64::from(self.element.bytes());
        if bytes > MOST_BOX {
            return Err(format!("tile: a box of {bytes} bytes, more than a block's shared memory"));
        }
        if self.nan_fill && !self.element.is_float() {
            return Err(format!("nan_fill: {:?} has no NaN", self.element));
        }
        Ok(())
    }

    /// The map as a kernel parameter.
    pub fn encode(&self) -> Result<[u8; 128], String> {
        self.validate()?;
        let mut out = [0u8; 128];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        let element =
            ELEMENTS.iter().position(|element| *element == self.element).expect("every element is listed");
        let swizzle =
            SWIZZLES.iter().position(|swizzle| *swizzle == self.swizzle).expect("every swizzle is listed");
        put(&[self.rank() as u8, element as u8, swizzle as u8, u8::from(self.nan_fill)]);
        put(&self.address.to_le_bytes());
        for d in 0..MOST_RANK {
            // Less one, so that 2^32 fits.
            put(&(self.extents.get(d).map_or(0, |extent| extent - 1) as u32).to_le_bytes());
        }
        for d in 0..MOST_RANK - 1 {
            put(&self.strides.get(d).copied().unwrap_or(0).to_le_bytes());
        }
        for d in 0..MOST_RANK {
            put(&(self.tile.get(d).copied().unwrap_or(0) as u16).to_le_bytes());
        }
        for d in 0..MOST_RANK {
            let stride = if d == 0 { 1 } else { self.element_strides.get(d).copied().unwrap_or(0) };
            put(&[stride as u8]);
        }
        let sum = checksum(&out[..CHECKED]);
        out[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
        Ok(out)
    }

    /// Changes a field of an encoded map, or of 128 zero bytes, which become one. Whether the map is legal shows when it
    /// is used.
    pub fn replace(bytes: &mut [u8; 128], field: Field, value: u64) -> Result<(), String> {
        if bytes.iter().all(|&byte| byte == 0) {
            bytes[..8].copy_from_slice(&MAGIC);
        } else if bytes[..8] != MAGIC {
            return Err("replaces a field of what is not a tensor map".into());
        }
        let wrong = |what: &str| Err(format!("{what} {value} does not exist"));
        let (at, length, value) = match field {
            Field::Address => (12, 8, value),
            Field::Rank => (8, 1, value + 1),
            Field::Element => match ELEMENT_TYPES.get(value as usize) {
                Some(&place) => (9, 1, u64::from(place)),
                None => return wrong("element type"),
            },
            Field::Swizzle if value < 4 => (10, 1, value),
            Field::Swizzle => return wrong("swizzle mode"),
            Field::Fill if value < 2 => (11, 1, value),
            Field::Fill => return wrong("fill mode"),
            Field::Interleave if value == 0 => return Ok(()),
            Field::Interleave => return Err("interleaved tensor maps are not modelled".into()),
            Field::Extent(d) => (20 + 4 * d, 4, value.wrapping_sub(1) & 0xffff_ffff),
            Field::Stride(d) => (40 + 8 * d, 8, value),
            Field::Tile(d) => (72 + 2 * d, 2, value),
            Field::ElementStride(d) => (82 + d, 1, value),
        };
        bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        let sum = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    /// Reads back what [`TensorMap::encode`] made; anything else is an error.
    pub fn decode(bytes: &[u8; 128]) -> Result<Self, String> {
        if bytes[..8] != MAGIC {
            return Err("not a tensor map: its first bytes are not those of an encoded one".into());
        }
        if bytes[CHECKED..CHECKED + 4] != checksum(&bytes[..CHECKED]).to_le_bytes() {
            return Err("a damaged tensor map: its checksum is wrong".into());
        }
        let rank = bytes[8] as usize;
        let (Some(element), Some(swizzle), 1..=MOST_RANK) =
            (ELEMENTS.get(bytes[9] as usize), SWIZZLES.get(bytes[10] as usize), rank)
        else {
            return Err("a damaged tensor map".into());
        };
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let map = TensorMap {
            element: *element,
            address: word(12),
            extents: (0..rank).map(|d| u64::from(half(20 + 4 * d)) + 1).collect(),
            strides: (0..rank - 1).map(|d| word(40 + 8 * d)).collect(),
            tile: (0..rank)
                .map(|d| u32::from(bytes[72 + 2 * d]) | u32::from(bytes[73 + 2 * d]) << 8)
                .collect(),
            element_strides: (0..rank).map(|d| u32::from(bytes[82 + d])).collect(),
            swizzle: *swizzle,
            nan_fill: bytes[11] != 0,
        };
        map.validate()?;
        Ok(map)
    }
}

/// Bytes before the checksum.
const CHECKED: usize = 88;

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            element: Element::Bf16,
            address: 0x7000_0040,
            extents: vec![576, 64, 1 << 32],
            strides: vec![1152, 73728],
            tile: vec![64, 64, 1],
            element_strides: vec![1, 2, 1],
            swizzle: Swizzle::B128,
            nan_fill: true,
        }
    }

    #[test]
    fn a_map_made_field_by_field_is_the_encoded_one() {
        let want = map();
        let mut bytes = [0; 128];
        let mut put = |field, value| TensorMap::replace(&mut bytes, field, value).unwrap();
        put(Field::Address, want.address);
        put(Field::Rank, want.rank() as u64 - 1);
        for d in 0..want.rank() {
            put(Field::Extent(d), want.extents[d]);
            put(Field::Tile(d), want.tile[d].into());
            put(Field::ElementStride(d), want.element_strides[d].into());
        }
        for (d, &stride) in want.strides.iter().enumerate() {
            put(Field::Stride(d), stride);
        }
        // bf16 is the ISA's number 10, and the widest swizzle 3.
        put(Field::Element, if want.element == Element::Bf16 { 10 } else { panic!("bf16") });
        put(Field::Swizzle, if want.swizzle == Swizzle::B128 { 3 } else { 0 });
        put(Field::Fill, want.nan_fill.into());
        put(Field::Interleave, 0);
        assert_eq!(TensorMap::decode(&bytes).unwrap(), want);
        assert!(TensorMap::replace(&mut bytes, Field::Swizzle, 4).is_err());
        assert!(TensorMap::replace(&mut bytes, Field::Interleave, 1).is_err());
        assert!(TensorMap::replace(&mut [7; 128], Field::Rank, 1).is_err());
    }

    #[test]
    fn encoding_comes_back() {
        assert_eq!(TensorMap::decode(&map().encode().unwrap()).unwrap(), map());
        for element in ELEMENTS {
            let swizzles = SWIZZLES
                .iter()
                .filter(|swizzle| swizzle.span().is_none_or(|span| span >= element.bytes() * 32));
            for swizzle in swizzles {
                let flat = TensorMap {
                    element,
                    address: 1 << 45,
                    extents: vec![77],
                    strides: vec![],
                    tile: vec![32],
                    element_strides: vec![1],
                    swizzle: *swizzle,
                    nan_fill: element.is_float(),
                };
                assert_eq!(TensorMap::decode(&flat.encode().unwrap()).unwrap(), flat);
            }
        }
    }

    #[test]
    fn garbage_and_damage_are_errors() {
        assert!(TensorMap::decode(&[0; 128]).is_err());
        assert!(TensorMap::decode(&[0xff; 128]).is_err());
        let good = map().encode().unwrap();
        for at in 0..92 {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(TensorMap::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_rule_names_its_field() {
        type Change = fn(&mut TensorMap);
        let cases: [(&str, Change); 18] = [
            ("extents: rank 0", |m| m.extents.clear()),
            ("extents: rank 6", |m| m.extents.extend([1, 1, 1])),
            ("strides: 1 values", |m| m.strides.truncate(1)),
            ("tile: 4 values", |m| m.tile.push(1)),
            ("element_strides: 2 values", |m| m.element_strides.truncate(2)),
            ("address:", |m| m.address += 8),
            ("extents[1]:", |m| m.extents[1] = 0),
            ("extents[2]:", |m| m.extents[2] += 1),
            ("strides[0]:", |m| m.strides[0] += 8),
            ("strides[1]:", |m| m.strides[1] = 1 << 40),
            ("address space", |m| m.address = !15),
            ("tile[1]: 0", |m| m.tile[1] = 0),
            ("tile[2]: 257", |m| m.tile[2] = 257),
            ("element_strides[1]: 9", |m| m.element_strides[1] = 9),
            ("tile[0]: 63 elements", |m| m.tile[0] = 63),
            ("tile[0]: 144 bytes", |m| m.tile[0] = 72),
            ("tile: a box", |m| m.tile = vec![64, 256, 15]),
            ("nan_fill: U16", |m| m.element = Element::U16),
        ];
        for (message, change) in cases {
            let mut bad = map();
            change(&mut bad);
            let error = bad.encode().unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let mut ignored = map();
        ignored.element_strides[0] = 77;
        assert!(ignored.encode().is_ok());
    }
}
