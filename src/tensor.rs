//! Tensors: typed, reference-counted views of device memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::device::{Allocation, Device};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};

/// The highest rank of a tensor.
pub const MAX_RANK: usize = 4;

/// A typed view of device memory: shape and strides over a shared allocation.
///
/// Cloning is cheap and clones see the same memory, which lives until the last view, and the last launch that
/// uses it, is done. Rank is 1 to 4; strides count elements and may be any non-negative number. Launches register
/// their uses: reading and writing from the host waits for them.
#[derive(Clone)]
pub struct Tensor<T: Element> {
    allocation: Arc<Allocation>,
    offset: usize,
    rank: u8,
    shape: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    element: PhantomData<T>,
}

/// The strides of a contiguous tensor.
fn row_major(shape: &[usize]) -> [usize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut step = 1;
    for (stride, dim) in strides[..shape.len()].iter_mut().zip(shape).rev() {
        *stride = step;
        step *= (*dim).max(1);
    }
    strides
}

/// Elements of a shape, if it is legal and its bytes fit an `i64`.
fn elements<T: Element>(operation: &'static str, shape: &[usize]) -> Result<usize> {
    if shape.is_empty() || shape.len() > MAX_RANK {
        return Err(Error::argument(operation, "shape", format!("{shape:?}"), "of rank 1 to 4"));
    }
    // Empty dimensions count as one: strides of an empty tensor must not overflow either.
    shape
        .iter()
        .try_fold(size_of::<T>(), |bytes, dim| bytes.checked_mul((*dim).max(1)))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Error::argument(operation, "shape", format!("{shape:?}"), "below 2^63 bytes"))?;
    Ok(shape.iter().product())
}

fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: `Element` types have no padding, so all their bytes are initialised; u8 has alignment 1.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Element>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and every bit pattern is a valid `Element`, so any bytes may be written.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

impl Device {
    /// A tensor with these values, row-major. Waits until they are on the device.
    pub fn tensor<T: Element>(&self, shape: &[usize], values: &[T]) -> Result<Tensor<T>> {
        let wanted = elements::<T>("Device::tensor", shape)?;
        if values.len() != wanted {
            return Err(Error::argument(
                "Device::tensor",
                "values",
                format!("{} elements", values.len()),
                format!("{wanted}, for shape {shape:?}"),
            ));
        }
        let tensor = self.empty(shape)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    pub fn zeros<T: Element>(&self, shape: &[usize]) -> Result<Tensor<T>> {
        let tensor = self.empty(shape)?;
        tensor.allocation.clear()?;
        Ok(tensor)
    }

    /// A tensor whose elements are all `value`.
    pub fn full<T: Element>(&self, shape: &[usize], value: T) -> Result<Tensor<T>> {
        let tensor = self.empty(shape)?;
        tensor.write(&vec![value; tensor.len()])?;
        Ok(tensor)
    }

    /// A tensor of whatever the memory holds. The simulated card calls it a fault when a kernel uses such values.
    pub fn empty<T: Element>(&self, shape: &[usize]) -> Result<Tensor<T>> {
        let len = elements::<T>("Device::empty", shape)?;
        let allocation = Arc::new(Allocation::new(self, (len * size_of::<T>()) as u64)?);
        Ok(Tensor::whole(allocation, shape))
    }
}

impl<T: Element> Tensor<T> {
    fn whole(allocation: Arc<Allocation>, shape: &[usize]) -> Self {
        let mut full = [1; MAX_RANK];
        full[..shape.len()].copy_from_slice(shape);
        let strides = row_major(shape);
        Self { allocation, offset: 0, rank: shape.len() as u8, shape: full, strides, element: PhantomData }
    }

    /// A view of device memory that something else owns, an engine's own buffer say.
    ///
    /// `owner` is kept as long as any view, and any launch or graph that uses one.
    ///
    /// # Safety
    ///
    /// - From `address` on, `shape` × `strides` (in elements) must lie in memory of `device`, valid while `owner`
    ///   (or the process, if there is none) lives, aligned to the element's size.
    /// - This crate orders only its own uses of the view. Work that others enqueue on the memory must be ordered
    ///   by the caller against every launch and host access made through the view.
    /// - A graph that captured the view names the address: replaying it is bound by the same duties.
    pub unsafe fn from_raw(
        device: &Device,
        address: u64,
        shape: &[usize],
        strides: &[usize],
        owner: Option<Arc<dyn std::any::Any + Send + Sync>>,
    ) -> Result<Self> {
        const OPERATION: &str = "Tensor::from_raw";
        elements::<T>(OPERATION, shape)?;
        if strides.len() != shape.len() {
            let got = format!("{strides:?}");
            return Err(Error::argument(OPERATION, "strides", got, format!("{} numbers", shape.len())));
        }
        if address == 0 || !address.is_multiple_of(size_of::<T>() as u64) {
            let want = format!("non-zero and a multiple of {}", size_of::<T>());
            return Err(Error::argument(OPERATION, "address", format!("{address:#x}"), want));
        }
        let elements = span(shape, strides)
            .filter(|n| n.checked_mul(size_of::<T>()).is_some_and(|bytes| i64::try_from(bytes).is_ok()))
            .ok_or_else(|| {
                Error::argument(OPERATION, "strides", format!("{strides:?}"), "below 2^63 bytes")
            })?;
        let bytes = (elements * size_of::<T>()) as u64;
        // SAFETY: the caller vouches for the memory; `span` is the extent of what shape and strides reach.
        let allocation = Arc::new(unsafe { Allocation::foreign(device, address, bytes, owner)? });
        let mut tensor = Self::whole(allocation, shape);
        tensor.strides[..strides.len()].copy_from_slice(strides);
        Ok(tensor)
    }

    /// The extents of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank()]
    }

    /// The distances, in elements, between neighbours in each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.rank()]
    }

    /// The extent of one dimension; 1 beyond the rank.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape.get(dim).copied().unwrap_or(1)
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        T::DTYPE
    }

    /// The device that holds the memory.
    pub fn device(&self) -> &Device {
        self.allocation.device()
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let packed = row_major(self.shape());
        self.is_empty()
            || self.shape().iter().zip(self.strides()).zip(packed).all(|((dim, s), p)| *dim == 1 || *s == p)
    }

    /// The elements in row-major order of the view. Waits for every launch that writes the memory.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let len = self.len();
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut raw = vec![T::default(); self.span()];
        self.allocation.read((self.offset * size_of::<T>()) as u64, bytes_of_mut(&mut raw))?;
        if self.is_contiguous() {
            return Ok(raw);
        }
        let mut values = Vec::with_capacity(len);
        let [_, b, c, d] = self.shape;
        for row in 0..len / d {
            let index = [row / (b * c), row / c % b, row % c];
            // The last used dimension is the innermost of `shape` only at rank 4: missing ones have extent 1.
            let start: usize = index.iter().zip(self.strides).map(|(i, s)| i * s).sum();
            values.extend((0..d).map(|i| raw[start + i * self.strides[3]]));
        }
        Ok(values)
    }

    /// Overwrites the elements, in row-major order. Waits for every launch that uses the memory, and until the
    /// values are on the device. The tensor must be contiguous.
    pub fn write(&self, values: &[T]) -> Result<()> {
        if values.len() != self.len() {
            let got = format!("{} elements", values.len());
            return Err(Error::argument("Tensor::write", "values", got, format!("{} elements", self.len())));
        }
        if !self.is_contiguous() {
            let got = format!("a view with strides {:?}", self.strides());
            return Err(Error::argument("Tensor::write", "self", got, "contiguous"));
        }
        if values.is_empty() {
            return Ok(());
        }
        self.allocation.write((self.offset * size_of::<T>()) as u64, bytes_of(values))
    }

    /// The view of indices `range` of dimension `dim`.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<Self> {
        self.check_dim("Tensor::slice", dim)?;
        if range.start > range.end || range.end > self.shape[dim] {
            let want = format!("within 0..{}", self.shape[dim]);
            return Err(Error::argument("Tensor::slice", "range", format!("{range:?}"), want));
        }
        let mut view = self.clone();
        view.shape[dim] = range.len();
        // An empty view keeps its place: one that starts at the end would point past the memory.
        if !view.is_empty() {
            view.offset += range.start * self.strides[dim];
        }
        Ok(view)
    }

    /// The view at index `index` of dimension `dim`, which goes away. The rank must be 2 or more.
    pub fn select(&self, dim: usize, index: usize) -> Result<Self> {
        self.check_dim("Tensor::select", dim)?;
        if self.rank == 1 {
            return Err(Error::argument("Tensor::select", "self", "of rank 1", "of rank 2 or more"));
        }
        if index >= self.shape[dim] {
            let want = format!("below {}", self.shape[dim]);
            return Err(Error::argument("Tensor::select", "index", index, want));
        }
        let mut view = self.slice(dim, index..index + 1)?;
        view.shape.copy_within(dim + 1.., dim);
        view.strides.copy_within(dim + 1.., dim);
        view.shape[MAX_RANK - 1] = 1;
        view.strides[MAX_RANK - 1] = 0;
        view.rank -= 1;
        Ok(view)
    }

    /// The same elements in another shape. The tensor must be contiguous and the number of elements the same.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let wanted = elements::<T>("Tensor::reshape", shape)?;
        if wanted != self.len() {
            let want = format!("a shape of {} elements", self.len());
            return Err(Error::argument("Tensor::reshape", "shape", format!("{shape:?}"), want));
        }
        if !self.is_contiguous() {
            let got = format!("a view with strides {:?}", self.strides());
            return Err(Error::argument("Tensor::reshape", "self", got, "contiguous"));
        }
        let mut view = Self::whole(self.allocation.clone(), shape);
        view.offset = self.offset;
        Ok(view)
    }

    /// The view with two dimensions exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.check_dim("Tensor::transpose", a)?;
        self.check_dim("Tensor::transpose", b)?;
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        Ok(view)
    }

    /// The view with dimension `dim`, of extent 1, repeated `count` times without copying.
    pub fn expand(&self, dim: usize, count: usize) -> Result<Self> {
        self.check_dim("Tensor::expand", dim)?;
        if self.shape[dim] != 1 {
            let got = format!("a dimension of extent {}", self.shape[dim]);
            return Err(Error::argument("Tensor::expand", "dim", got, "one of extent 1"));
        }
        let mut view = self.clone();
        view.shape[dim] = count;
        view.strides[dim] = 0;
        elements::<T>("Tensor::expand", view.shape())?;
        Ok(view)
    }

    /// A view of any shape and strides, `offset` elements behind this view's first, that stays within the
    /// allocation.
    pub fn as_strided(&self, offset: usize, shape: &[usize], strides: &[usize]) -> Result<Self> {
        const OPERATION: &str = "Tensor::as_strided";
        let len = elements::<T>(OPERATION, shape)?;
        if strides.len() != shape.len() {
            let got = format!("{strides:?}");
            return Err(Error::argument(OPERATION, "strides", got, format!("{} numbers", shape.len())));
        }
        let room = self.allocation.bytes() as usize / size_of::<T>();
        let first = self.offset.checked_add(offset);
        let end = first.zip(span(shape, strides)).and_then(|(first, span)| first.checked_add(span));
        let (Some(first), true) = (first, end.is_some_and(|end| end <= room)) else {
            let got = format!("{shape:?} with strides {strides:?} from element {offset}");
            let want = format!("within the {} elements from this view's first", room - self.offset);
            return Err(Error::argument(OPERATION, "shape", got, want));
        };
        let mut view = Self::whole(self.allocation.clone(), shape);
        view.offset = if len == 0 { self.offset } else { first };
        view.strides[..strides.len()].copy_from_slice(strides);
        Ok(view)
    }

    /// Whether the two views may share a byte. Exact for views that interleave in a common row stride, such as
    /// two column ranges of one matrix; otherwise it errs on the side of "yes".
    pub fn overlaps<U: Element>(&self, other: &Tensor<U>) -> bool {
        if self.is_empty() || other.is_empty() {
            return false;
        }
        let ((a, a_bytes), (b, b_bytes)) = (self.byte_span(), other.byte_span());
        if self.device() != other.device() || a + a_bytes <= b || b + b_bytes <= a {
            return false;
        }
        let strides =
            |strides: &[usize], size: usize| strides.iter().map(|s| (s * size) as u64).collect::<Vec<_>>();
        let (mine, theirs) =
            (strides(self.strides(), size_of::<T>()), strides(other.strides(), size_of::<U>()));
        let base = a.min(b);
        // For a period that divides every longer stride, each view repeats one interval per period.
        let disjoint_in = |period: u64| {
            let interval = |start: u64, shape: &[usize], strides: &[u64], size: usize| {
                let mut inner = size as u64;
                for (dim, stride) in shape.iter().zip(strides) {
                    if *dim > 1 && stride % period != 0 {
                        inner += (*dim as u64 - 1) * stride;
                    }
                }
                let first = (start - base) % period;
                (first + inner <= period).then_some((first, first + inner))
            };
            match (
                interval(a, self.shape(), &mine, size_of::<T>()),
                interval(b, other.shape(), &theirs, size_of::<U>()),
            ) {
                (Some(x), Some(y)) => x.1 <= y.0 || y.1 <= x.0,
                _ => false,
            }
        };
        !mine.iter().chain(&theirs).any(|period| *period > 0 && disjoint_in(*period))
    }

    /// Whether the two views are the very same elements in the same order.
    pub fn same_as<U: Element>(&self, other: &Tensor<U>) -> bool {
        self.device() == other.device()
            && T::DTYPE == U::DTYPE
            && self.address() == other.address()
            && self.shape() == other.shape()
            && self.strides() == other.strides()
    }

    /// The device address of the first element. Its memory lives as long as a view of it does; uses of it that
    /// this crate does not know of must be ordered by the caller.
    pub fn address(&self) -> u64 {
        self.allocation.address() + (self.offset * size_of::<T>()) as u64
    }

    /// The address of the first byte and the number of bytes from it to behind the last element.
    pub(crate) fn byte_span(&self) -> (u64, u64) {
        let bytes = if self.is_empty() { 0 } else { self.span() * size_of::<T>() };
        (self.address(), bytes as u64)
    }

    /// The same elements as bytes, of a type that has one.
    pub(crate) fn bytes(&self) -> Tensor<u8> {
        const { assert!(size_of::<T>() == 1) };
        let Self { ref allocation, offset, rank, shape, strides, .. } = *self;
        Tensor { allocation: allocation.clone(), offset, rank, shape, strides, element: PhantomData }
    }

    /// The bytes of the last dimension as elements of another type, which must fit it and the address. Contiguous views only.
    pub(crate) fn reinterpreted<U: Element>(&self) -> Tensor<U> {
        let mut shape = self.shape;
        let last = self.rank() - 1;
        let (bytes, offset) = (shape[last] * size_of::<T>(), self.offset * size_of::<T>());
        debug_assert!(self.is_contiguous() && bytes.is_multiple_of(size_of::<U>()));
        debug_assert!(
            self.address().is_multiple_of(size_of::<U>() as u64) && offset.is_multiple_of(size_of::<U>())
        );
        shape[last] = bytes / size_of::<U>();
        let mut view = Tensor::whole(self.allocation.clone(), &shape[..self.rank()]);
        view.offset = offset / size_of::<U>();
        view
    }

    pub(crate) fn allocation(&self) -> &Arc<Allocation> {
        &self.allocation
    }

    /// Elements from the first to behind the last one.
    fn span(&self) -> usize {
        self.shape().iter().zip(self.strides()).map(|(dim, stride)| (dim - 1) * stride).sum::<usize>() + 1
    }

    fn check_dim(&self, operation: &'static str, dim: usize) -> Result<()> {
        if dim < self.rank() {
            Ok(())
        } else {
            Err(Error::argument(operation, "dim", dim, format!("below the rank, {}", self.rank)))
        }
    }
}

/// Elements that shape and strides reach, from the first to behind the last; `None` on overflow.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |end, (dim, stride)| end.checked_add((dim - 1).checked_mul(*stride)?))
}

impl<T: Element> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor<{}>{:?}", T::DTYPE, self.shape())?;
        if !self.is_contiguous() {
            write!(f, " strides {:?}", self.strides())?;
        }
        write!(f, " on {}", self.device().name())
    }
}
