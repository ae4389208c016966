//! `wmma`: fragments to and from memory, and their products.

use super::operands::any;
use super::{Grid, Step, Trouble};
use crate::fault::FaultKind;
use crate::fragments::Matrix;
use crate::lower::program::{Address, Dst, Form, Fragment, S32, Space};
use crate::row::Row64;

impl Grid<'_> {
    pub(super) fn fragments(&mut self, w: usize, mask: u32, fragment: &Fragment) -> Step<()> {
        self.whole_warp(w, mask)?;
        match fragment {
            Fragment::Load { form, to, space, at, stride } => {
                self.load_fragment(w, form, to, *space, at, *stride)
            }
            Fragment::Store { form, from, space, at, stride } => {
                self.store_fragment(w, form, from, *space, at, *stride)
            }
            Fragment::Multiply { product, d, a, b, c } => {
                let (a, sa) = self.fragment(w, a)?;
                let (b, sb) = self.fragment(w, b)?;
                let (c, sc) = self.fragment(w, c)?;
                let result = product.multiply([&a, &b, &c], self.profile.compute_capability);
                self.counters.tensor_macs += product.size.iter().product::<usize>() as u64;
                let clean = [&sa, &sb, &sc].iter().all(|s| s.iter().flatten().all(|&s| s == 0));
                let shadows = (!clean && self.schedule.checks).then(|| product.undefined([&sa, &sb, &sc]));
                for (i, &d) in d.iter().enumerate() {
                    self.put32(
                        w,
                        d,
                        &result[i],
                        mask,
                        shadows.as_ref().map(|s| &s[i]).filter(|s| any(s, mask)),
                    )?;
                }
                Ok(())
            }
        }
    }

    /// Addresses of one element of every lane.
    fn element_addresses(&self, form: &Form, base: u64, stride: u64, slot: usize) -> Row64 {
        std::array::from_fn(|lane| {
            let (row, column) = form.matrix.place(lane, slot);
            let (line, along) = if form.by_rows { (row, column) } else { (column, row) };
            base + (line as u64 * stride + along as u64) * form.matrix.bytes as u64
        })
    }

    /// Address of the first element and elements from line to line, the same in every lane.
    fn corner(&self, w: usize, form: &Form, at: &Address, stride: Option<S32>) -> Step<(u64, u64)> {
        let addresses = self.addresses(w, at, u32::MAX)?;
        if let Some(lane) = (0..32).find(|&i| addresses[i] != addresses[0]) {
            let what = "a fragment's address differs between the lanes of a warp".to_owned();
            return Err(Trouble { kind: FaultKind::Barrier(what), lane: Some(lane as u32) });
        }
        let Matrix { bytes, .. } = form.matrix;
        let stride = match stride {
            Some(stride) => self.uniform32(w, stride, u32::MAX, "a fragment's stride")?.into(),
            None => (if form.by_rows { form.matrix.columns() } else { form.matrix.rows() }) as u64,
        };
        let along = if form.by_rows { form.matrix.columns() } else { form.matrix.rows() };
        let whole = (along * bytes).min(16) as u32;
        self.aligned(0, addresses[0], whole)?;
        self.aligned(0, stride * bytes as u64, whole)?;
        Ok((addresses[0], stride))
    }

    fn load_fragment(
        &mut self,
        w: usize,
        form: &Form,
        to: &[Dst],
        space: Space,
        at: &Address,
        stride: Option<S32>,
    ) -> Step<()> {
        let (base, stride) = self.corner(w, form, at, stride)?;
        let (matrix, bytes) = (form.matrix, form.matrix.bytes);
        let mut values = vec![[0u64; 32]; to.len()];
        let mut shadows = vec![[0u64; 32]; to.len()];
        for slot in 0..to.len() * 4 / bytes {
            let addresses = self.element_addresses(form, base, stride, slot);
            let (word, by) = matrix.within(slot);
            let mut places = [None; 32];
            for lane in 0..32 {
                let place = self.locate(w, lane, space, addresses[lane], bytes as u32)?;
                places[lane] = Some(place);
                let (data, defined) = self.bytes_at(w, place, bytes);
                for (i, &byte) in data.iter().enumerate() {
                    values[word][lane] |= u64::from(byte) << (by + 8 * i);
                    if defined >> i & 1 == 0 && self.schedule.checks {
                        shadows[word][lane] |= 0xff << (by + 8 * i);
                    }
                }
            }
            // Repeated elements are read once.
            if slot < matrix.each() {
                self.count_access(space, &addresses, u32::MAX, bytes as u32, false);
                self.touch(w, space, &addresses, u32::MAX, bytes as u32, false);
                self.race_read(w, &places, bytes)?;
            }
        }
        for (i, &d) in to.iter().enumerate() {
            let shadow = Some(&shadows[i]).filter(|s| s.iter().any(|&s| s != 0));
            self.put(w, d, &values[i], u32::MAX, shadow)?;
        }
        Ok(())
    }

    fn store_fragment(
        &mut self,
        w: usize,
        form: &Form,
        from: &[S32],
        space: Space,
        at: &Address,
        stride: Option<S32>,
    ) -> Step<()> {
        let (base, stride) = self.corner(w, form, at, stride)?;
        let (matrix, bytes) = (form.matrix, form.matrix.bytes);
        let (values, shadows) = self.fragment(w, from)?;
        for slot in 0..matrix.each() {
            let addresses = self.element_addresses(form, base, stride, slot);
            let (word, by) = matrix.within(slot);
            let touch = self.race_begin(w, true);
            for lane in 0..32 {
                let place = self.locate(w, lane, space, addresses[lane], bytes as u32)?;
                let part = |x: u32| (x >> by).to_le_bytes();
                let (data, undefined) = (part(values[word][lane]), part(shadows[word][lane]));
                let defined = (0..bytes)
                    .filter(|&i| undefined[i] == 0 || !self.schedule.checks)
                    .fold(0, |bits, i| bits | 1 << i);
                if defined != (1 << bytes) - 1 && matches!(place, super::access::Place::Global(..)) {
                    let kind = FaultKind::Uninitialised { used_as: "a value stored to global memory" };
                    return Err(Trouble { kind, lane: Some(lane as u32) });
                }
                if let Some(touch) = &touch {
                    self.race_touch(w, touch, place, bytes, 1 << lane, Some(&data[..bytes]))?;
                }
                self.write_at(w, place, &data[..bytes], defined);
            }
            self.count_access(space, &addresses, u32::MAX, bytes as u32, true);
            self.touch(w, space, &addresses, u32::MAX, bytes as u32, true);
        }
        Ok(())
    }
}
