//! A checkpoint's tensors: one or more memory-mapped safetensors files, looked up by name and checked as they are
//! read.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use narrowgauge::dtype::bf16;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::config::BLOCK;
use super::failure::{Failure, Outcome, fail};

pub struct Checkpoint {
    files: Vec<Mmap>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// An FP8 matrix as it lies in the file, and its block scales.
pub struct Fp8Matrix<'a> {
    pub cols: usize,
    /// `rows * cols` e4m3 bytes.
    pub data: &'a [u8],
    /// `ceil(rows / 128) * ceil(cols / 128)` factors (the published name is `weight_scale_inv`).
    pub scales: Vec<f32>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Checkpoint {
    /// Maps the files that `model.safetensors.index.json` names, or every `*.safetensors` where there is none.
    pub fn open(directory: &Path) -> Outcome<Checkpoint> {
        let mut checkpoint = Checkpoint { files: Vec::new(), tensors: HashMap::new() };
        for path in safetensors_files(directory)? {
            checkpoint
                .map(&path)
                .map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))?;
        }
        Ok(checkpoint)
    }

    pub fn bf16(&self, name: &str, shape: &[usize]) -> Outcome<Vec<bf16>> {
        let bytes = self.tensor(name, &[Dtype::BF16], shape)?.1;
        Ok(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect())
    }

    /// A float32 tensor; bf16 is widened, which is exact.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Outcome<Vec<f32>> {
        let (dtype, bytes) = self.tensor(name, &[Dtype::F32, Dtype::BF16], shape)?;
        Ok(match dtype {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            _ => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        })
    }

    /// `{name}.weight` and `{name}.weight_scale_inv`.
    pub fn fp8(&self, name: &str, rows: usize, cols: usize) -> Outcome<Fp8Matrix<'_>> {
        let data = self.tensor(&format!("{name}.weight"), &[Dtype::F8_E4M3], &[rows, cols])?.1;
        let blocks = [rows.div_ceil(BLOCK), cols.div_ceil(BLOCK)];
        let scales = self.f32(&format!("{name}.weight_scale_inv"), &blocks)?;
        Ok(Fp8Matrix { cols, data, scales })
    }

    fn map(&mut self, path: &Path) -> Outcome<()> {
        let file = File::open(path).map_err(Failure::new)?;
        // SAFETY: the map is only read, as bytes, of which every value is valid. Another process that truncates or
        // rewrites the file meanwhile would be outside what Rust can rule out; a model directory is taken as still.
        let map = unsafe { Mmap::map(&file) }.map_err(Failure::new)?;
        // The crate's check covers the header, every tensor's extent, and that they fill the file exactly.
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(Failure::new)?;
        let start = size_of::<u64>() + header;
        let file = self.files.len();
        for (name, info) in metadata.tensors() {
            let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
            let entry = Entry { file, dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.tensors.insert(name.clone(), entry).is_some() {
                fail!("tensor {name} is in two files");
            }
        }
        self.files.push(map);
        Ok(())
    }

    fn tensor(&self, name: &str, dtypes: &[Dtype], shape: &[usize]) -> Outcome<(Dtype, &[u8])> {
        let Some(entry) = self.tensors.get(name) else {
            fail!("tensor {name} is missing");
        };
        if !dtypes.contains(&entry.dtype) {
            fail!("tensor {name} has dtype {:?}; wanted {:?}", entry.dtype, dtypes[0]);
        }
        if entry.shape != shape {
            fail!("tensor {name} has shape {:?}; wanted {shape:?}", entry.shape);
        }
        Ok((entry.dtype, &self.files[entry.file][entry.bytes.clone()]))
    }
}

impl Fp8Matrix<'_> {
    /// The matrix that the bytes and scales stand for, row by row.
    pub fn dequantized(&self) -> Vec<f32> {
        let blocks = self.cols.div_ceil(BLOCK);
        let values: [f32; 256] =
            std::array::from_fn(|bits| narrowgauge::dtype::E4m3::from_bits(bits as u8).to_f32());
        let mut out = Vec::with_capacity(self.data.len());
        for (row, line) in self.data.chunks_exact(self.cols).enumerate() {
            let scales = &self.scales[row / BLOCK * blocks..][..blocks];
            out.extend(
                line.iter().enumerate().map(|(col, bits)| values[usize::from(*bits)] * scales[col / BLOCK]),
            );
        }
        out
    }
}

fn safetensors_files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let index = directory.join("model.safetensors.index.json");
    if index.exists() {
        let text =
            std::fs::read_to_string(&index).map_err(|e| Failure::new(format!("{}: {e}", index.display())))?;
        let map: Index =
            serde_json::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", index.display())))?;
        let names: BTreeSet<String> = map.weight_map.into_values().collect();
        // A shard lies in the directory itself: an index cannot send the reader elsewhere.
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            fail!("{}: `{name}` is not a plain file name", index.display());
        }
        return Ok(names.into_iter().map(|name| directory.join(name)).collect());
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => fail!("{}: {error}", directory.display()),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Failure::new)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        fail!("{}: no *.safetensors file", directory.display());
    }
    files.sort();
    Ok(files)
}
