package esp32

import "encoding/binary"

// Sizes and places of the two descriptors. One stands at the start of an image's
// first segment; images older than ESP-IDF 3.3 (apps) and 5.1 (bootloaders) have none.
const (
	DescOffset      = HeaderSize + SegmentHeaderSize // in the image, bytes
	AppDescSize     = 256
	BootDescSize    = 80
	appDescMagic    = 0xABCD5432
	bootDescMagic   = 80 // its own size
	bootDescVersion = 8  // where its text begins
)

// AppDesc is esp_app_desc_t. Texts end at their first NUL; every byte is a field,
// so that what is read and written again is the same.
type AppDesc struct {
	SecureVersion uint32 // held against the efuses by a bootloader with anti-rollback
	Reserved1     [8]byte
	Version       [32]byte
	Project       [32]byte
	Time          [16]byte
	Date          [16]byte
	IDFVersion    [32]byte
	ELFSHA256     [32]byte
	MinBlockRev   uint16 // efuse block revision: major*100 + minor
	MaxBlockRev   uint16
	MMUPageLog2   uint8 // 0: 64 KiB, from before it was stored
	SPIMode       uint8 // 0: not stored
	Reserved2     [74]byte
}

// Parse reads a descriptor from p, which begins with it. False: there is none.
func (d *AppDesc) Parse(p []byte) bool {
	*d = AppDesc{}
	le := binary.LittleEndian
	if len(p) < AppDescSize || le.Uint32(p) != appDescMagic {
		return false
	}
	d.SecureVersion = le.Uint32(p[4:])
	copy(d.Reserved1[:], p[8:])
	copy(d.Version[:], p[16:])
	copy(d.Project[:], p[48:])
	copy(d.Time[:], p[80:])
	copy(d.Date[:], p[96:])
	copy(d.IDFVersion[:], p[112:])
	copy(d.ELFSHA256[:], p[144:])
	d.MinBlockRev, d.MaxBlockRev = le.Uint16(p[176:]), le.Uint16(p[178:])
	d.MMUPageLog2, d.SPIMode = p[180], p[181]
	copy(d.Reserved2[:], p[182:])
	return true
}

// Encode writes the descriptor.
func (d *AppDesc) Encode(out *[AppDescSize]byte) {
	le := binary.LittleEndian
	le.PutUint32(out[0:], appDescMagic)
	le.PutUint32(out[4:], d.SecureVersion)
	copy(out[8:], d.Reserved1[:])
	copy(out[16:], d.Version[:])
	copy(out[48:], d.Project[:])
	copy(out[80:], d.Time[:])
	copy(out[96:], d.Date[:])
	copy(out[112:], d.IDFVersion[:])
	copy(out[144:], d.ELFSHA256[:])
	le.PutUint16(out[176:], d.MinBlockRev)
	le.PutUint16(out[178:], d.MaxBlockRev)
	out[180], out[181] = d.MMUPageLog2, d.SPIMode
	copy(out[182:], d.Reserved2[:])
}

// BootDesc is esp_bootloader_desc_t.
type BootDesc struct {
	Reserved1     [2]byte
	SecureVersion uint8
	Version       uint32
	IDFVersion    [32]byte
	Built         [24]byte
	Reserved2     [16]byte
}

// Parse reads a bootloader's descriptor from p, which begins with it. False: there
// is none. Its magic is one byte; the text of its version has to look like one too.
func (d *BootDesc) Parse(p []byte) bool {
	*d = BootDesc{}
	if len(p) < BootDescSize || p[0] != bootDescMagic || p[bootDescVersion] != 'v' {
		return false
	}
	copy(d.Reserved1[:], p[1:])
	d.SecureVersion = p[3]
	d.Version = binary.LittleEndian.Uint32(p[4:])
	copy(d.IDFVersion[:], p[bootDescVersion:])
	copy(d.Built[:], p[40:])
	copy(d.Reserved2[:], p[64:])
	return true
}

// Encode writes the descriptor.
func (d *BootDesc) Encode(out *[BootDescSize]byte) {
	out[0] = bootDescMagic
	copy(out[1:], d.Reserved1[:])
	out[3] = d.SecureVersion
	binary.LittleEndian.PutUint32(out[4:], d.Version)
	copy(out[bootDescVersion:], d.IDFVersion[:])
	copy(out[40:], d.Built[:])
	copy(out[64:], d.Reserved2[:])
}

// Text is a field up to its first NUL.
func Text(field []byte) []byte {
	for i, b := range field {
		if b == 0 {
			return field[:i]
		}
	}
	return field
}
