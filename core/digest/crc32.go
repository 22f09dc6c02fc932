package digest

// crcNibble is the CRC-32 (IEEE 802.3, reflected 0xEDB88320) of the sixteen
// nibbles: 64 bytes of flash, where a full table takes 1,024.
var crcNibble = [16]uint32{
	0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
	0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
}

// CRC32 adds p to crc: CRC32(0, p) is the usual CRC-32 of p, and
// CRC32(CRC32(0, a), b) that of a followed by b.
func CRC32(crc uint32, p []byte) uint32 {
	crc = ^crc
	for _, b := range p {
		crc ^= uint32(b)
		crc = crc>>4 ^ crcNibble[crc&15]
		crc = crc>>4 ^ crcNibble[crc&15]
	}
	return ^crc
}
