//! What a case reads and writes: named tensors, and what of them must move at least.

use narrowgauge::{DType, E4m3, Element, Fp8Blocks, Fp8Rows, Result, Tensor, Ue8m0, bf16, f16};

/// A tensor of a case, without its type.
pub struct Operand {
    pub name: &'static str,
    pub output: bool,
    pub dtype: DType,
    /// As the operation takes it; strides count elements.
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    pub address: u64,
    /// Bytes that must move once.
    pub ideal: u64,
    memory: Box<dyn Fn() -> Result<Vec<u8>>>,
}

impl Operand {
    /// Bytes from the first element to behind the last, as they lie in memory.
    pub fn memory(&self) -> Result<Vec<u8>> {
        (self.memory)()
    }

    /// Elements from the first to behind the last.
    pub fn span(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        1 + self.shape.iter().zip(&self.strides).map(|(dim, stride)| (dim - 1) * stride).sum::<usize>()
    }
}

/// The operands of a case.
#[derive(Default)]
pub struct Operands(pub Vec<Operand>);

impl Operands {
    pub fn input<T: Plain>(self, name: &'static str, tensor: &Tensor<T>) -> Self {
        self.with(name, tensor, false)
    }

    pub fn output<T: Plain>(self, name: &'static str, tensor: &Tensor<T>) -> Self {
        self.with(name, tensor, true)
    }

    /// Data and scales, the latter as `<name>_scales`.
    pub fn input_rows(self, names: [&'static str; 2], rows: &Fp8Rows) -> Self {
        self.input(names[0], rows.data()).input(names[1], rows.scales())
    }

    pub fn output_rows(self, names: [&'static str; 2], rows: &Fp8Rows) -> Self {
        self.output(names[0], rows.data()).output(names[1], rows.scales())
    }

    pub fn input_blocks(self, names: [&'static str; 2], blocks: &Fp8Blocks) -> Self {
        self.input(names[0], blocks.data()).input(names[1], blocks.scales())
    }

    /// Of the last operand no more than so many elements need to move.
    pub fn of_which(mut self, elements: usize) -> Self {
        if let Some(last) = self.0.last_mut() {
            last.ideal = (elements * last.dtype.size()) as u64;
        }
        self
    }

    fn with<T: Plain>(mut self, name: &'static str, tensor: &Tensor<T>, output: bool) -> Self {
        let mut operand = Operand {
            name,
            output,
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            strides: tensor.strides().to_vec(),
            address: tensor.address(),
            ideal: (tensor.len() * size_of::<T>()) as u64,
            memory: Box::new(|| Ok(Vec::new())),
        };
        let (tensor, span) = (tensor.clone(), operand.span());
        operand.memory = Box::new(move || {
            let all = tensor.as_strided(0, &[span], &[1])?.to_vec()?;
            Ok(all.into_iter().flat_map(Plain::bytes).collect())
        });
        self.0.push(operand);
        self
    }

    /// Bytes that must move once: each input and each output.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|operand| operand.ideal).sum()
    }
}

/// An element as bytes.
pub trait Plain: Element {
    fn bytes(self) -> Vec<u8>;
}

macro_rules! plain {
    ($($type:ty),+) => {$(
        impl Plain for $type {
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )+};
}

plain!(f32, bf16, f16, i32, u8);

impl Plain for Ue8m0 {
    fn bytes(self) -> Vec<u8> {
        vec![self.to_bits()]
    }
}

impl Plain for E4m3 {
    fn bytes(self) -> Vec<u8> {
        vec![self.to_bits()]
    }
}
