//! Tiled copies: where the pieces of a box lie in global and in shared memory.

use crate::tensor_map::{Swizzle, TensorMap};

/// A contiguous piece of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Address in global memory; none where a load fills out-of-bounds elements.
    pub global: Option<u64>,
    /// Address in shared memory.
    pub shared: u32,
    /// Bytes.
    pub bytes: u32,
}

/// Bytes of shared memory that one box takes, and that a load counts on its barrier, out-of-bounds ones included.
pub fn box_bytes(map: &TensorMap) -> u32 {
    (0..map.rank()).map(|d| map.box_extent(d)).product::<u32>() * map.element.bytes()
}

/// The pieces of the box at `coordinates` (innermost first), at `shared_address`.
///
/// A load covers every byte of the box. A store leaves out what lies past the tensor's end.
pub fn segments(
    map: &TensorMap,
    coordinates: &[i32],
    shared_address: u32,
    store: bool,
) -> Result<Vec<Segment>, String> {
    let rank = map.rank();
    if coordinates.len() != rank {
        return Err(format!("{} coordinates for a tensor map of rank {rank}", coordinates.len()));
    }
    let alignment = if map.swizzle == Swizzle::B128 { 1024 } else { 128 };
    if !shared_address.is_multiple_of(alignment) {
        return Err(format!(
            "shared address {shared_address:#x} is not a multiple of {alignment}, as {:?} layout wants",
            map.swizzle
        ));
    }
    if store && let Some(d) = coordinates.iter().position(|c| *c < 0) {
        return Err(format!(
            "a store starts at coordinate {} of dimension {d}; it must not be negative",
            coordinates[d]
        ));
    }

    let size = i64::from(map.element.bytes());
    let row_bytes = map.tile[0] * map.element.bytes();
    let rows: u32 = (1..rank).map(|d| map.box_extent(d)).product();
    // The part of each row that lies inside the tensor, in bytes of the row.
    let first = i64::from(coordinates[0]);
    let inside = |element: i64| (element.clamp(0, i64::from(map.tile[0])) * size) as u32;
    let (from, to) = (inside(-first), inside(map.extents[0] as i64 - first));
    let piece = if map.swizzle == Swizzle::None { row_bytes } else { 16 };

    let mut out = Vec::with_capacity((rows * (row_bytes / piece)) as usize + 2 * rows as usize);
    let mut index = [0u32; 5];
    for row in 0..rows {
        let mut base = map.address.wrapping_add_signed(first * size);
        let mut present = from < to;
        for d in 1..rank {
            let position =
                i64::from(coordinates[d]) + i64::from(index[d]) * i64::from(map.element_strides[d]);
            present &= position >= 0 && position < map.extents[d] as i64;
            base = base.wrapping_add((position as u64).wrapping_mul(map.strides[d - 1]));
        }
        let (from, to) = if present { (from, to) } else { (0, 0) };
        let start = shared_address + row * row_bytes;
        let mut push = |begin: u32, end: u32, global: bool| {
            if begin < end && (global || !store) {
                // Pieces never cross a 16-byte chunk where chunks move.
                let shared = map.swizzle.apply(start + begin);
                let global = global.then(|| base.wrapping_add(u64::from(begin)));
                out.push(Segment { global, shared, bytes: end - begin });
            }
        };
        for begin in (0..row_bytes).step_by(piece as usize) {
            let end = begin + piece;
            if from <= begin && end <= to {
                push(begin, end, true);
            } else {
                push(begin, end.min(from), false);
                push(begin.max(from), end.min(to), true);
                push(begin.max(to).max(from), end, false);
            }
        }
        for (d, index) in index[..rank].iter_mut().enumerate().skip(1) {
            *index += 1;
            if *index < map.box_extent(d) {
                break;
            }
            *index = 0;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_map::Element;

    /// Byte by byte: shared address → global address (or fill), from the definition.
    fn literal(map: &TensorMap, coordinates: &[i32], shared: u32) -> Vec<(u32, Option<u64>)> {
        let size = map.element.bytes();
        let rank = map.rank();
        let extents: Vec<u32> = (0..rank)
            .map(|d| if d == 0 { map.tile[0] } else { map.tile[d].div_ceil(map.element_strides[d]) })
            .collect();
        let total: u32 = extents.iter().product();
        let mut out = Vec::new();
        for element in 0..total {
            let mut rest = element;
            let mut global = Some(map.address as i64);
            for d in 0..rank {
                let i = rest % extents[d];
                rest /= extents[d];
                let step = if d == 0 { 1 } else { map.element_strides[d] };
                let at = i64::from(coordinates[d]) + i64::from(i * step);
                let stride = if d == 0 { i64::from(size) } else { map.strides[d - 1] as i64 };
                global = global.filter(|_| at >= 0 && at < map.extents[d] as i64).map(|g| g + at * stride);
            }
            for byte in 0..size {
                let plain = shared + element * size + byte;
                let place = match map.swizzle.span() {
                    None => plain,
                    Some(span) => plain ^ (((plain % (8 * span)) >> 7) << 4),
                };
                out.push((place, global.map(|g| g as u64 + u64::from(byte))));
            }
        }
        out.sort_unstable();
        out
    }

    fn flatten(segments: &[Segment]) -> Vec<(u32, Option<u64>)> {
        let mut out: Vec<_> = segments
            .iter()
            .flat_map(|s| (0..s.bytes).map(|i| (s.shared + i, s.global.map(|g| g + u64::from(i)))))
            .collect();
        out.sort_unstable();
        out
    }

    fn check(map: &TensorMap, coordinates: &[i32], shared: u32) {
        map.validate().unwrap();
        let want = literal(map, coordinates, shared);
        let load = segments(map, coordinates, shared, false).unwrap();
        assert_eq!(flatten(&load), want, "{map:?} {coordinates:?}");
        assert_eq!(want.len() as u32, box_bytes(map));
        if map.swizzle != Swizzle::None {
            assert!(load.iter().all(|s| s.bytes <= 16 && s.shared / 16 == (s.shared + s.bytes - 1) / 16));
        }
        let store = segments(map, coordinates, shared, true);
        if coordinates.iter().any(|c| *c < 0) {
            assert!(store.unwrap_err().contains("negative"));
        } else {
            let clipped: Vec<_> = want.into_iter().filter(|(_, global)| global.is_some()).collect();
            assert_eq!(flatten(&store.unwrap()), clipped);
        }
    }

    #[test]
    fn two_dimensions_inside_and_over_every_edge() {
        for (swizzle, inner) in
            [(Swizzle::None, 64), (Swizzle::B32, 16), (Swizzle::B64, 32), (Swizzle::B128, 64)]
        {
            let map = TensorMap {
                element: Element::Bf16,
                address: 0x10_0000,
                extents: vec![100, 30],
                strides: vec![208],
                tile: vec![inner, 24],
                element_strides: vec![1, 1],
                swizzle,
                nan_fill: false,
            };
            for coordinates in
                [[0, 0], [37, 3], [70, 20], [-5, -3], [99, 29], [100, 0], [0, 30], [-200, 5], [5, -24]]
            {
                check(&map, &coordinates, 4096);
            }
            if swizzle != Swizzle::B128 {
                check(&map, &[3, 0], 4096 + 128);
            }
        }
    }

    #[test]
    fn other_ranks_and_element_strides() {
        let base = TensorMap {
            element: Element::F32,
            address: 0x8000,
            extents: vec![9, 5, 6, 4, 3],
            strides: vec![48, 240, 1456, 8000],
            tile: vec![8, 3, 4, 2, 2],
            element_strides: vec![1, 2, 3, 1, 1],
            swizzle: Swizzle::B32,
            nan_fill: true,
        };
        for coordinates in [[0; 5], [4, 1, 2, 3, 2], [-1, -1, 3, -1, 0], [2, 4, 5, 0, 1]] {
            for rank in 1..=5 {
                let map = TensorMap {
                    extents: base.extents[..rank].to_vec(),
                    strides: base.strides[..rank - 1].to_vec(),
                    tile: base.tile[..rank].to_vec(),
                    element_strides: base.element_strides[..rank].to_vec(),
                    ..base.clone()
                };
                check(&map, &coordinates[..rank], 2048);
            }
        }
        let bytes = TensorMap {
            element: Element::U8,
            extents: vec![131, 70],
            strides: vec![144],
            tile: vec![128, 64],
            element_strides: vec![1, 1],
            swizzle: Swizzle::B128,
            nan_fill: false,
            ..base
        };
        check(&bytes, &[0, 64], 1024);
        check(&bytes, &[10, 6], 2048);
    }

    #[test]
    fn far_coordinates_do_not_wrap() {
        let map = TensorMap {
            element: Element::U8,
            address: 1 << 40,
            extents: vec![1 << 31, 1 << 31],
            strides: vec![1 << 31],
            tile: vec![16, 2],
            element_strides: vec![1, 8],
            swizzle: Swizzle::None,
            nan_fill: false,
        };
        check(&map, &[i32::MAX, i32::MAX], 1024);
        check(&map, &[i32::MIN, i32::MIN], 1024);
    }

    #[test]
    fn misuse_is_an_error() {
        let map = TensorMap {
            element: Element::U8,
            address: 0,
            extents: vec![128, 8],
            strides: vec![128],
            tile: vec![128, 8],
            element_strides: vec![1, 1],
            swizzle: Swizzle::B128,
            nan_fill: false,
        };
        assert!(segments(&map, &[0, 0], 1024 + 128, false).unwrap_err().contains("multiple of 1024"));
        assert!(segments(&map, &[0], 1024, false).unwrap_err().contains("rank 2"));
        let plain = TensorMap { swizzle: Swizzle::None, ..map };
        assert!(segments(&plain, &[0, 0], 1024 + 64, false).unwrap_err().contains("multiple of 128"));
        assert_eq!(segments(&plain, &[0, 0], 1152, false).unwrap().len(), 8);
    }
}
