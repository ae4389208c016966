//! Kernel images: what `build.rs` embedded, or the files of a folder named by `NARROWGAUGE_IMAGES`.

use crate::error::{Error, Result};
use lzma_rust2::Lzma2Reader;
use std::collections::HashMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Written by `pack` of `build.rs`; empty where the crate was built without kernels.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/images.bin"));

/// How far back a packed stream refers; `WINDOW` of `build.rs`.
const WINDOW: u32 = 1 << 22;

/// One kernel for one architecture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// What the simulated card runs.
    pub ptx: Arc<str>,
    /// What ptxas made from this very PTX; `None` where a folder of images has the PTX alone.
    pub cubin: Option<Arc<[u8]>>,
}

/// What a card is given.
#[cfg(feature = "cuda")]
pub(crate) enum Code {
    Cubin(Arc<[u8]>),
    /// A folder of images had nothing else: the driver compiles it.
    Ptx(Arc<str>),
}

/// The image of a kernel for the architecture as nvcc names it, `sm_90a`. A folder of `NARROWGAUGE_IMAGES` with
/// `<entry>.90a.ptx` comes before what is embedded; it is read at every call.
pub(crate) fn find(entry: &str, arch: &str) -> Result<Image> {
    if let Some(image) = in_folder(entry, arch)? {
        return Ok(image);
    }
    let packed = embedded().find(entry, bare(arch))?;
    Ok(Image { ptx: packed.ptx(entry)?, cubin: Some(packed.cubin(entry)?) })
}

/// Of the same image the PTX alone, so that no machine code is unpacked for it.
#[cfg(feature = "sim")]
pub(crate) fn find_ptx(entry: &str, arch: &str) -> Result<Arc<str>> {
    match in_folder(entry, arch)? {
        Some(image) => Ok(image.ptx),
        None => embedded().find(entry, bare(arch))?.ptx(entry),
    }
}

/// Of the same image what a card runs, so that no PTX is unpacked for it.
#[cfg(feature = "cuda")]
pub(crate) fn find_code(entry: &str, arch: &str) -> Result<Code> {
    match in_folder(entry, arch)? {
        Some(Image { cubin: Some(cubin), .. }) => Ok(Code::Cubin(cubin)),
        Some(Image { ptx, .. }) => Ok(Code::Ptx(ptx)),
        None => embedded().find(entry, bare(arch))?.cubin(entry).map(Code::Cubin),
    }
}

fn bare(arch: &str) -> &str {
    arch.strip_prefix("sm_").unwrap_or(arch)
}

fn in_folder(entry: &str, arch: &str) -> Result<Option<Image>> {
    let Some(folder) = std::env::var_os("NARROWGAUGE_IMAGES") else { return Ok(None) };
    let ptx = PathBuf::from(folder).join(format!("{entry}.{}.ptx", bare(arch)));
    if ptx.is_file() { from_files(entry, &ptx).map(Some) } else { Ok(None) }
}

/// The entry names of the kernels that this build carries, in order.
pub fn kernels() -> Vec<&'static str> {
    let mut entries: Vec<_> = embedded().images.keys().copied().collect();
    entries.sort_unstable();
    entries
}

fn from_files(entry: &str, ptx: &Path) -> Result<Image> {
    let failed = |path: &Path, e: std::io::Error| Error::Image {
        kernel: entry.to_owned(),
        reason: format!("{}: {e}", path.display()),
    };
    let text = std::fs::read_to_string(ptx).map_err(|e| failed(ptx, e))?;
    let cubin = ptx.with_extension("cubin");
    let machine_code = match std::fs::read(&cubin) {
        Ok(bytes) => Some(bytes.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed(&cubin, e)),
    };
    Ok(Image { ptx: text.into(), cubin: machine_code })
}

fn embedded() -> &'static Embedded {
    static EMBEDDED: OnceLock<Embedded> = OnceLock::new();
    EMBEDDED.get_or_init(|| Embedded::index(PACKED).unwrap_or_default())
}

/// The packed images, by entry and architecture.
#[derive(Default)]
struct Embedded {
    images: HashMap<&'static str, HashMap<&'static str, Packed>>,
}

/// Where one image lies within the streams of its group.
struct Packed {
    group: Arc<Group>,
    in_ptx: Range<usize>,
    in_cubin: Range<usize>,
    ptx: OnceLock<Result<Arc<str>>>,
    cubin: OnceLock<Result<Arc<[u8]>>>,
}

/// The images of one source share a stream of PTX and one of machine code: variants differ in little, which a
/// compressor only sees when it sees them together.
struct Group {
    ptx: Stream,
    cubin: Stream,
}

struct Stream {
    packed: &'static [u8],
    /// Unpacked, at the first use.
    whole: OnceLock<Option<Vec<u8>>>,
}

impl Stream {
    fn new(packed: &'static [u8]) -> Self {
        Stream { packed, whole: OnceLock::new() }
    }

    fn part(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.whole.get_or_init(|| self.unpack()).as_deref()?.get(range.clone())
    }

    fn unpack(&self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        Lzma2Reader::new(self.packed, WINDOW, None).read_to_end(&mut whole).ok()?;
        Some(whole)
    }
}

impl Embedded {
    /// `None` where the bytes are not a file of images, as the empty file of a build without kernels.
    fn index(bytes: &'static [u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
        lines.next()?.strip_prefix("narrowgauge-images 3 ")?;
        let mut rest = &bytes[end + 2..];
        let mut images: HashMap<_, HashMap<_, _>> = HashMap::new();
        let mut group = None;
        let (mut ptx_end, mut cubin_end) = (0_usize, 0_usize);
        for line in lines {
            let mut words = line.split(' ');
            let entry = words.next()?;
            if entry == "*" {
                let mut stream = || Some(Stream::new(rest.split_off(..words.next()?.parse().ok()?)?));
                group = Some(Arc::new(Group { ptx: stream()?, cubin: stream()? }));
                (ptx_end, cubin_end) = (0, 0);
                continue;
            }
            let arch = words.next()?;
            let mut next = |end: &mut usize| {
                let start = *end;
                *end = start.checked_add(words.next()?.parse().ok()?)?;
                Some(start..*end)
            };
            let packed = Packed {
                group: group.clone()?,
                in_ptx: next(&mut ptx_end)?,
                in_cubin: next(&mut cubin_end)?,
                ptx: OnceLock::new(),
                cubin: OnceLock::new(),
            };
            images.entry(entry).or_default().insert(arch, packed);
        }
        Some(Embedded { images })
    }

    fn find(&self, entry: &str, arch: &str) -> Result<&Packed> {
        let built = self.images.get(entry).and_then(|built| built.get(arch));
        built.ok_or_else(|| self.missing(entry, arch))
    }

    fn missing(&self, entry: &str, arch: &str) -> Error {
        let Some(built) = self.images.get(entry) else {
            return Error::KernelsNotBuilt { kernel: entry.to_owned() };
        };
        let mut built: Vec<&str> = built.keys().copied().collect();
        built.sort_unstable();
        let built = built.iter().map(|arch| format!("sm_{arch}")).collect::<Vec<_>>().join(", ");
        Error::UnsupportedArch { kernel: entry.to_owned(), found: format!("sm_{arch}"), built }
    }
}

impl Packed {
    fn ptx(&self, entry: &str) -> Result<Arc<str>> {
        let unpack = || {
            let text = self.group.ptx.part(&self.in_ptx).and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.map(Arc::from).ok_or_else(|| damaged(entry, "PTX"))
        };
        self.ptx.get_or_init(unpack).clone()
    }

    fn cubin(&self, entry: &str) -> Result<Arc<[u8]>> {
        let unpack = || {
            let bytes = self.group.cubin.part(&self.in_cubin);
            bytes.map(Arc::from).ok_or_else(|| damaged(entry, "machine code"))
        };
        self.cubin.get_or_init(unpack).clone()
    }
}

fn damaged(entry: &str, what: &str) -> Error {
    Error::Image { kernel: entry.to_owned(), reason: format!("the embedded {what} is damaged") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn packed() -> &'static [u8] {
        let pack = |bytes: &[u8]| {
            let mut writer =
                lzma_rust2::Lzma2Writer::new(Vec::new(), lzma_rust2::Lzma2Options::with_preset(1));
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        };
        let (ptx, cubin) = (pack(b".version 8.0.version 8.1"), pack(b"\x7fELF0\x7fELF"));
        let mut bytes = format!(
            "narrowgauge-images 3 13.0.88\n* {} {}\nadd 90a 12 5\nmul 90a 12 4\n\n",
            ptx.len(),
            cubin.len()
        )
        .into_bytes();
        bytes.extend(ptx);
        bytes.extend(cubin);
        bytes.leak()
    }

    #[test]
    fn an_image_comes_back_as_it_was_packed() {
        let images = Embedded::index(packed()).unwrap();
        for _ in 0..2 {
            for (entry, ptx, cubin) in
                [("add", ".version 8.0", "\x7fELF0"), ("mul", ".version 8.1", "\x7fELF")]
            {
                let image = images.find(entry, "90a").unwrap();
                assert_eq!(&*image.ptx(entry).unwrap(), ptx);
                assert_eq!(&*image.cubin(entry).unwrap(), cubin.as_bytes());
            }
        }
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut bytes = packed().to_vec();
        let stream = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap() + 2;
        bytes[stream] = 0xff;
        let images = Embedded::index(bytes.leak()).unwrap();
        let error = images.find("add", "90a").unwrap().ptx("add").unwrap_err().to_string();
        assert!(error.contains("PTX is damaged"), "{error}");
        assert_eq!(&*images.find("add", "90a").unwrap().cubin("add").unwrap(), b"\x7fELF0");
    }

    #[test]
    fn what_is_missing_is_named() {
        let images = Embedded::index(packed()).unwrap();
        let error = images.find("add", "80").err().unwrap().to_string();
        assert!(error.contains("sm_80") && error.contains("sm_90a"), "{error}");
        let error = images.find("subtract", "90a").err().unwrap();
        assert_eq!(error, Error::KernelsNotBuilt { kernel: "subtract".into() });
    }

    #[test]
    fn a_build_without_kernels_has_none() {
        assert!(Embedded::index(b"").is_none());
        let error = Embedded::default().find("add", "90a").err().unwrap();
        assert_eq!(error, Error::KernelsNotBuilt { kernel: "add".into() });
    }

    #[test]
    fn a_cut_file_is_refused() {
        let whole = packed();
        assert!(Embedded::index(&whole[..whole.len() - 1]).is_none());
    }

    #[test]
    fn every_embedded_image_unpacks() {
        for (entry, arch) in
            embedded().images.iter().flat_map(|(entry, built)| built.keys().map(move |arch| (entry, arch)))
        {
            let image = find(entry, arch).unwrap();
            assert!(image.ptx.contains(&format!(".entry {entry}(")), "{entry} is not in its own PTX");
            assert!(image.cubin.unwrap().starts_with(b"\x7fELF"), "{entry}");
        }
    }
}
