//! From text to token ids and back: the checkpoint's `tokenizer.json`, or plain bytes where the vocabulary is 256 and
//! there is none. The bundle has no room for tokenizers and reads no `tokenizer.json` (`ng_bytes_only`).

use std::path::Path;

#[cfg(not(ng_bytes_only))]
use tokenizers::Tokenizer;

use super::failure::{Failure, Outcome, fail};

pub enum Text {
    #[cfg(not(ng_bytes_only))]
    Tokenizer(Box<Tokenizer>),
    Bytes,
    /// Ids only: the checkpoint brings no tokenizer that this build reads, and its vocabulary is not bytes.
    None,
}

impl Text {
    pub fn load(directory: &Path, vocab: usize) -> Outcome<Text> {
        let path = directory.join("tokenizer.json");
        #[cfg(ng_bytes_only)]
        if path.exists() {
            return Ok(Text::None);
        }
        #[cfg(not(ng_bytes_only))]
        if path.exists() {
            return match Tokenizer::from_file(&path) {
                Ok(tokenizer) => Ok(Text::Tokenizer(Box::new(tokenizer))),
                Err(error) => fail!("{}: {error}", path.display()),
            };
        }
        Ok(if vocab == 256 { Text::Bytes } else { Text::None })
    }

    pub fn encode(&self, prompt: &str) -> Outcome<Vec<u32>> {
        match self {
            #[cfg(not(ng_bytes_only))]
            Text::Tokenizer(tokenizer) => {
                let encoding = tokenizer.encode(prompt, true).map_err(Failure::new)?;
                Ok(encoding.get_ids().to_vec())
            }
            Text::Bytes => Ok(prompt.bytes().map(u32::from).collect()),
            Text::None => fail!(
                "no tokenizer.json that is read here, and the vocabulary is not bytes: give --prompt-ids"
            ),
        }
    }

    pub fn decode(&self, ids: &[u32]) -> Option<String> {
        match self {
            #[cfg(not(ng_bytes_only))]
            Text::Tokenizer(tokenizer) => tokenizer.decode(ids, false).ok(),
            Text::Bytes => {
                let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            Text::None => None,
        }
    }
}

/// `1,2,3` as ids.
pub fn parse_ids(list: &str) -> Outcome<Vec<u32>> {
    if list.trim().is_empty() {
        return Ok(Vec::new());
    }
    list.split(',')
        .map(|part| {
            let part = part.trim();
            part.parse().map_err(|_| Failure::new(format!("--prompt-ids: `{part}` is not a token id")))
        })
        .collect()
}

/// A prompt that the model can take: at least one token, each of them in the vocabulary.
pub fn check(ids: &[u32], vocab: usize) -> Outcome<()> {
    if ids.is_empty() {
        fail!("the prompt is empty");
    }
    match ids.iter().position(|id| *id as usize >= vocab) {
        Some(at) => fail!("token id {} at position {at} of the prompt; the vocabulary has {vocab}", ids[at]),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ids() {
        assert_eq!(parse_ids("1, 2,3").unwrap(), [1, 2, 3]);
        assert!(parse_ids("").unwrap().is_empty());
        for bad in ["1,,2", "x", "-1", "4294967296", "1.5"] {
            assert!(parse_ids(bad).unwrap_err().to_string().contains("is not a token id"), "{bad}");
        }
    }

    #[test]
    fn checks_ids() {
        assert!(check(&[0, 255], 256).is_ok());
        assert!(check(&[], 256).unwrap_err().to_string().contains("empty"));
        let message = check(&[3, 256], 256).unwrap_err().to_string();
        assert!(message.contains("token id 256 at position 1"), "{message}");
    }

    #[test]
    fn bytes_both_ways() {
        assert_eq!(Text::Bytes.encode("aé").unwrap(), [97, 0xc3, 0xa9]);
        assert_eq!(Text::Bytes.decode(&[97, 0xc3, 0xa9]).unwrap(), "aé");
        assert!(Text::None.encode("a").is_err());
    }

    #[cfg(not(ng_bytes_only))]
    #[test]
    fn a_tokenizer_file_is_used() {
        let directory = std::env::temp_dir().join(format!("narrowgauge-tokenizer-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
            "model":{"type":"WordLevel","vocab":{"narrow":0,"gauge":1,"?":2},"unk_token":"?"}}"#;
        std::fs::write(directory.join("tokenizer.json"), file).unwrap();
        let text = Text::load(&directory, 256).unwrap();
        std::fs::write(directory.join("tokenizer.json"), "{").unwrap();
        let broken = Text::load(&directory, 256);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text.encode("gauge narrow rail").unwrap(), [1, 0, 2]);
        assert_eq!(text.decode(&[0, 1]).unwrap(), "narrow gauge");
        assert!(broken.is_err_and(|failure| failure.to_string().contains("tokenizer.json")));
    }
}
