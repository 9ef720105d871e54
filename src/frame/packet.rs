//! Packets: a 4-byte length, then that many bytes.

use crate::error::Error;
use crate::error::Kind;
use crate::options::Endian;

/// Bytes of the length in front of every packet.
pub const HEADER: usize = 4;

/// The payload's length, once the header has arrived. A length over `max` is refused here, before anything is
/// read or reserved for it.
pub fn payload_length(input: &[u8], endian: Endian, max: usize) -> Result<Option<usize>, Error> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
    let length = match endian {
        Endian::Big => u32::from_be_bytes(*header),
        Endian::Little => u32::from_le_bytes(*header),
    };
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(Some(length)),
        _ => Err(too_large(length as u64, max)),
    }
}

/// The header of a packet with `length` bytes of payload.
pub fn header(length: usize, endian: Endian, max: usize) -> Result<[u8; HEADER], Error> {
    match u32::try_from(length) {
        Ok(length) if length as usize <= max => Ok(match endian {
            Endian::Big => length.to_be_bytes(),
            Endian::Little => length.to_le_bytes(),
        }),
        _ => Err(too_large(length as u64, max)),
    }
}

fn too_large(length: u64, max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("packet of {length} bytes is over max_packet ({max})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_read_what_they_wrote() {
        for endian in [Endian::Big, Endian::Little] {
            let header = header(258, endian, 1000).unwrap();
            assert_eq!(payload_length(&header, endian, 1000).unwrap(), Some(258));
        }
        assert_eq!(header(258, Endian::Big, 1000).unwrap(), [0, 0, 1, 2]);
    }

    #[test]
    fn half_a_header_is_not_a_length() {
        assert_eq!(payload_length(&[0, 0, 1], Endian::Big, 10).unwrap(), None);
    }

    #[test]
    fn a_claim_over_the_limit_is_refused_by_its_header_alone() {
        let error = payload_length(&[0xff; 4], Endian::Big, 512_000).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(error.message(), "packet of 4294967295 bytes is over max_packet (512000)");
        assert_eq!(header(11, Endian::Big, 10).unwrap_err().kind(), Kind::TooLarge);
        assert!(header(10, Endian::Big, 10).is_ok());
    }
}
