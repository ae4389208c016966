//! Whole kernels for tests: buffers in, tensor maps, several warps, words out, and the line that a fault must name.
//!
//! With `NARROWGAUGE_PTXAS` set to an assembler, every text is assembled too: a test must not rest on PTX that no card
//! would take.

use narrowgauge_sim::tensor_map::TensorMap;
use narrowgauge_sim::{CardProfile, Fault, Launch, LoadError, Machine, Module, Policy, Report, Schedule};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Mutex;

/// Completion policies with a few seeds each.
pub fn schedules() -> impl Iterator<Item = Schedule> + Clone {
    [(Policy::Eager, 0), (Policy::Late, 0), (Policy::Random, 1), (Policy::Random, 2), (Policy::Random, 3)]
        .into_iter()
        .map(|(policy, seed)| Schedule::with(policy, seed))
}

type MapOver = dyn Fn(&[u64]) -> TensorMap;

/// A kernel to be: `%out` is the address of its output words, `%t` the thread's number, `%at` the thread's own word,
/// `%b0`… the addresses of the buffers, `%m0`… those of the tensor maps (in parameter space, generic).
#[derive(Clone)]
pub struct Rig {
    body: String,
    module: String,
    threads: u32,
    blocks: u32,
    words: usize,
    dynamic: u32,
    directives: String,
    buffers: Vec<Vec<u8>>,
    maps: Vec<Rc<MapOver>>,
    schedule: Schedule,
    assembled: bool,
}

/// What a kernel left behind.
pub struct Ran {
    pub out: Vec<u32>,
    pub buffers: Vec<Vec<u8>>,
    pub report: Report,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x?}…", &self.out[..self.out.len().min(32)])
    }
}

/// A kernel of one warp with a word a thread; the body's statements, one a line.
pub fn rig(body: &str) -> Rig {
    Rig {
        body: body.to_owned(),
        module: String::new(),
        threads: 32,
        blocks: 1,
        words: 32,
        dynamic: 0,
        directives: String::new(),
        buffers: Vec::new(),
        maps: Vec::new(),
        schedule: Schedule::default(),
        assembled: true,
    }
}

impl Rig {
    /// The same with a snippet, which must occur once, replaced.
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        assert_eq!(self.body.matches(from).count(), 1, "`{from}` in {}", self.body);
        self.body = self.body.replace(from, to);
        self
    }

    /// Threads of the block, and at least as many output words.
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self.words = self.words.max(threads as usize);
        self
    }

    pub fn blocks(mut self, blocks: u32) -> Self {
        self.blocks = blocks;
        self
    }

    /// Output words.
    pub fn words(mut self, words: usize) -> Self {
        self.words = words;
        self
    }

    /// Text before the entry: variables and functions.
    pub fn module(mut self, text: &str) -> Self {
        self.module = text.to_owned();
        self
    }

    /// Performance directives of the entry.
    pub fn directives(mut self, text: &str) -> Self {
        self.directives = text.to_owned();
        self
    }

    pub fn dynamic(mut self, bytes: u32) -> Self {
        self.dynamic = bytes;
        self
    }

    pub fn buffer(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.buffers.push(bytes.into());
        self
    }

    pub fn replace_buffer(mut self, index: usize, bytes: Vec<u8>) -> Self {
        self.buffers[index] = bytes;
        self
    }

    /// A buffer of words.
    pub fn numbers(self, words: impl IntoIterator<Item = u32>) -> Self {
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        self.buffer(bytes)
    }

    /// A tensor map over the buffers, whose addresses it is given.
    pub fn map(mut self, map: impl Fn(&[u64]) -> TensorMap + 'static) -> Self {
        self.maps.push(Rc::new(map));
        self
    }

    pub fn schedule(&self, schedule: Schedule) -> Self {
        Self { schedule, ..self.clone() }
    }

    /// The text races on purpose: only what it sees is of interest.
    pub fn racing(mut self) -> Self {
        self.schedule.races = false;
        self
    }

    /// The text is wrong on purpose, in a way that an assembler notices too.
    pub fn illegal(mut self) -> Self {
        self.assembled = false;
        self
    }

    pub fn text(&self) -> String {
        let mut params = vec!["    .param .u64 out_ptr".to_owned()];
        let mut prologue = String::from("    ld.param.u64 %out, [out_ptr];\n");
        for i in 0..self.buffers.len() {
            params.push(format!("    .param .u64 buffer{i}"));
            prologue += &format!("    .reg .b64 %b{i};\n    ld.param.u64 %b{i}, [buffer{i}];\n");
        }
        for i in 0..self.maps.len() {
            params.push(format!("    .param .align 64 .b8 map{i}[128]"));
            prologue += &format!(
                "    .reg .b64 %m{i};\n    mov.b64 %m{i}, map{i};\n    cvta.param.u64 %m{i}, %m{i};\n"
            );
        }
        format!(
            r#".version 9.0
.target sm_90a
.address_size 64
{}
.visible .entry k(
{}
)
{}
{{
    .reg .pred %p<16>;
    .reg .b16 %h<32>;
    .reg .b32 %r<80>;
    .reg .b64 %rd<40>;
    .reg .b64 %out;
    .reg .b64 %at;
    .reg .b32 %t;
    .shared .align 1024 .b8 smem[32768];
{prologue}
    mov.u32 %t, %tid.x;
    mad.wide.u32 %at, %t, 4, %out;
{}
    ret;
}}
"#,
            self.module,
            params.join(",\n"),
            self.directives,
            self.body
        )
    }

    pub fn load(&self) -> Result<Module, LoadError> {
        let text = self.text();
        if self.assembled {
            assemble(&text);
        }
        Module::parse(&text)
    }

    pub fn run(&self) -> Result<Ran, Box<Fault>> {
        let module = self.load().unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
        let mut machine = Machine::new(CardProfile::H20);
        let out = machine.alloc(4 * self.words as u64).unwrap();
        machine.fill(out, 4 * self.words as u64, 0xee).unwrap();
        let mut addresses = Vec::new();
        for bytes in &self.buffers {
            let at = machine.alloc(bytes.len() as u64).unwrap();
            machine.write(at, bytes).unwrap();
            addresses.push(at);
        }
        let mut params = vec![out.to_le_bytes().to_vec()];
        params.extend(addresses.iter().map(|at| at.to_le_bytes().to_vec()));
        params.extend(self.maps.iter().map(|map| map(&addresses).encode().unwrap().to_vec()));
        let params: Vec<&[u8]> = params.iter().map(Vec::as_slice).collect();
        let launch = Launch {
            entry: "k",
            grid: [self.blocks, 1, 1],
            block: [self.threads, 1, 1],
            cluster: [1; 3],
            shared_bytes: self.dynamic,
            params: &params,
            schedule: self.schedule,
        };
        let report = machine.launch(&module, &launch)?;
        let fetch = |at, len| {
            let mut bytes = vec![0; len];
            machine.read(at, &mut bytes).unwrap();
            bytes
        };
        let buffers = addresses.iter().zip(&self.buffers).map(|(&at, b)| fetch(at, b.len())).collect();
        let bytes = fetch(out, 4 * self.words);
        let out = bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        Ok(Ran { out, buffers, report })
    }

    /// The output words of a run that must end well.
    pub fn out(&self) -> Vec<u32> {
        match self.run() {
            Ok(ran) => ran.out,
            Err(fault) => panic!("{fault}\n{}", self.text()),
        }
    }

    /// The fault that the run must end with, at the one line that holds `culprit`.
    pub fn fault(&self, culprit: &str) -> Fault {
        let text = self.text();
        let mut lines = text.lines().zip(1..).filter(|(line, _)| line.contains(culprit));
        let (_, line) = lines.next().unwrap_or_else(|| panic!("no line has `{culprit}`"));
        assert!(lines.next().is_none(), "several lines have `{culprit}`");
        match self.run() {
            Ok(_) => panic!("`{culprit}` ended well\n{text}"),
            Err(fault) => {
                assert_eq!(fault.line, line, "{fault}\n{text}");
                *fault
            }
        }
    }
}

fn assemble(text: &str) {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let Ok(assembler) = std::env::var("NARROWGAUGE_PTXAS") else { return };
    let number = {
        let mut seen = SEEN.lock().unwrap();
        let seen = seen.get_or_insert_default();
        if !seen.insert(text.to_owned()) {
            return;
        }
        seen.len()
    };
    let path = std::env::temp_dir().join(format!("narrowgauge-{}-{number}.ptx", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let output = std::process::Command::new(assembler)
        .args(["-arch=sm_90a", "-o", "/dev/null"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// 32 values, one a lane.
pub fn lanes(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}
