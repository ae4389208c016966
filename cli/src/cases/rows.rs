//! Operations on whole rows.

use super::{Case, Operands, Prepared, bf16s, i32s};
use narrowgauge::norm::{Add, RmsNorm, RmsNormQuantize};
use narrowgauge::quant::Quantize;
use narrowgauge::routing::SwigluQuantize;
use narrowgauge::verify::Source;
use narrowgauge::vocab::{Argmax, Embedding};
use narrowgauge::{Fp8Rows, ScaleLayout, bf16};

pub fn quantize(m: usize, k: usize) -> Case {
    Case {
        name: format!("quantize/{m}x{k}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let x = bf16s(device, &[m, k], 1)?;
            let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
            let operands = Operands::default().input("x", &x).output_rows(["out", "out_scales"], &out);
            let launch = Box::new(move |stream: &_| Quantize::new(&x, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn rms_norm(m: usize, k: usize) -> Case {
    Case {
        name: format!("rms_norm/{m}x{k}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let (x, weight) = (bf16s(device, &[m, k], 2)?, bf16s(device, &[k], 3)?);
            let out = device.empty::<bf16>(&[m, k])?;
            let operands = Operands::default().input("x", &x).input("weight", &weight).output("out", &out);
            let launch = Box::new(move |stream: &_| RmsNorm::new(&x, &weight, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn rms_norm_quantize(m: usize, k: usize) -> Case {
    Case {
        name: format!("rms_norm_quantize/{m}x{k}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let (x, weight) = (bf16s(device, &[m, k], 2)?, bf16s(device, &[k], 3)?);
            let out = Fp8Rows::empty(device, m, k, ScaleLayout::MnMajor)?;
            let operands = Operands::default()
                .input("x", &x)
                .input("weight", &weight)
                .output_rows(["out", "out_scales"], &out);
            let launch = Box::new(move |stream: &_| RmsNormQuantize::new(&x, &weight, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn add(m: usize, k: usize) -> Case {
    Case {
        name: format!("add/{m}x{k}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let (a, b) = (bf16s(device, &[m, k], 14)?, bf16s(device, &[m, k], 15)?);
            let out = device.empty::<bf16>(&[m, k])?;
            let operands = Operands::default().input("a", &a).input("b", &b).output("out", &out);
            let launch = Box::new(move |stream: &_| Add::new(&a, &b, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn embedding(tokens: usize, vocabulary: usize, hidden: usize) -> Case {
    Case {
        name: format!("embedding/{tokens}x{vocabulary}x{hidden}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let table = bf16s(device, &[vocabulary, hidden], 16)?;
            let mut source = Source::new(17);
            let ids: Vec<usize> = (0..tokens).map(|_| source.below(vocabulary.max(1))).collect();
            let mut distinct = ids.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let ids = device.tensor(&[tokens], &i32s(ids))?;
            let out = device.empty::<bf16>(&[tokens, hidden])?;
            let operands = Operands::default()
                .input("table", &table)
                .of_which(distinct.len() * hidden)
                .input("ids", &ids)
                .output("out", &out);
            let launch = Box::new(move |stream: &_| Embedding::new(&table, &ids, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn argmax(rows: usize, vocabulary: usize) -> Case {
    Case {
        name: format!("argmax/{rows}x{vocabulary}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let values = Source::new(18).normals(rows * vocabulary, 1.0);
            let logits = device.tensor(&[rows, vocabulary], &values)?;
            let out = device.empty::<i32>(&[rows])?;
            let operands = Operands::default().input("logits", &logits).output("out", &out);
            let launch = Box::new(move |stream: &_| Argmax::new(&logits, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}

pub fn swiglu_quantize(m: usize, width: usize) -> Case {
    Case {
        name: format!("swiglu_quantize/{m}x{width}"),
        flops: 0.0,
        fp8: true,
        prepare: Box::new(move |device| {
            let gate_up = bf16s(device, &[m, 2 * width], 5)?;
            let out = Fp8Rows::empty(device, m, width, ScaleLayout::MnMajor)?;
            let operands =
                Operands::default().input("gate_up", &gate_up).output_rows(["out", "out_scales"], &out);
            let launch = Box::new(move |stream: &_| SwigluQuantize::new(&gate_up, &out).launch(stream));
            Ok(Prepared { launch, operands })
        }),
    }
}
