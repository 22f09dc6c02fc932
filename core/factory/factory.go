// Package factory is the page that a board is given once, before it is shipped: who
// it is, the secret that it shares with its server, and the roots that it believes.
// docs/format/factory.md has the bytes.
package factory

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Limits, in bytes.
const (
	SecretSize  = 32
	MaxName     = 64 // of each of the three names
	MaxRoots    = 4096
	headerBytes = 44
	crcBytes    = 4

	magic  = 0x464C4E52 // "RNLF", little-endian
	format = 1
)

// Page is what the page says. Its slices are views into the bytes that were read.
type Page struct {
	Key                       uint8 // number of the secret
	Device, Product, Hardware []byte
	Secret                    *[SecretSize]byte
	Roots                     []byte // the trust store that is baked in; empty: none
}

// Error is what is wrong with a page.
type Error uint8

const (
	ErrNone   Error = iota + 1 // the magic is not there: nobody wrote a page
	ErrFormat                  // of a format that is not known here
	ErrLength                  // a name or the roots are empty or too long, or the page is cut short
	ErrCRC                     // the CRC-32 is wrong
)

func (e Error) Error() string {
	switch e {
	case ErrNone:
		return "factory page: none is there"
	case ErrFormat:
		return "factory page: unknown format"
	case ErrLength:
		return "factory page: a length is wrong"
	case ErrCRC:
		return "factory page: CRC-32 does not match"
	}
	return "factory page: unknown error"
}

// Parse reads a page from the start of b; what lies behind it is ignored. It returns
// 0, or what is wrong: then p is not to be used.
func (p *Page) Parse(b []byte) Error {
	if len(b) < headerBytes || binary.LittleEndian.Uint32(b) != magic {
		return ErrNone
	}
	if b[4] != format || b[9] != 0 {
		return ErrFormat
	}
	roots := int(binary.LittleEndian.Uint16(b[10:]))
	end := headerBytes + int(b[6]) + int(b[7]) + int(b[8]) + roots
	if !named(b[6]) || !named(b[7]) || !named(b[8]) || roots > MaxRoots || end+crcBytes > len(b) {
		return ErrLength
	}
	if binary.LittleEndian.Uint32(b[end:]) != digest.CRC32(0, b[:end]) {
		return ErrCRC
	}
	p.Key = b[5]
	p.Secret = (*[SecretSize]byte)(b[12:headerBytes])
	product := headerBytes + int(b[6])
	hardware := product + int(b[7])
	p.Device, p.Product = b[headerBytes:product], b[product:hardware]
	p.Hardware, p.Roots = b[hardware:end-roots], b[end-roots:end]
	return 0
}

func named(n byte) bool  { return n > 0 && n <= MaxName }
func fits(p []byte) bool { return len(p) > 0 && len(p) <= MaxName }

// Encode writes the page into b and returns its bytes; ErrLength where something is
// empty, too long or does not fit.
func (p *Page) Encode(b []byte) ([]byte, Error) {
	end := headerBytes + len(p.Device) + len(p.Product) + len(p.Hardware) + len(p.Roots)
	if !fits(p.Device) || !fits(p.Product) || !fits(p.Hardware) || p.Secret == nil || len(p.Roots) > MaxRoots || end+crcBytes > len(b) {
		return nil, ErrLength
	}
	binary.LittleEndian.PutUint32(b, magic)
	b[4], b[5] = format, p.Key
	b[6], b[7], b[8], b[9] = byte(len(p.Device)), byte(len(p.Product)), byte(len(p.Hardware)), 0
	binary.LittleEndian.PutUint16(b[10:], uint16(len(p.Roots)))
	at := 12
	at += copy(b[at:], p.Secret[:])
	at += copy(b[at:], p.Device)
	at += copy(b[at:], p.Product)
	at += copy(b[at:], p.Hardware)
	copy(b[at:], p.Roots)
	binary.LittleEndian.PutUint32(b[end:], digest.CRC32(0, b[:end]))
	return b[:end+crcBytes], 0
}

// ReadAt makes the roots a manifest.TrustReader.
func (p *Page) ReadAt(b []byte, off uint32) error {
	if off > uint32(len(p.Roots)) || uint32(len(b)) > uint32(len(p.Roots))-off {
		return ErrLength
	}
	copy(b, p.Roots[off:])
	return nil
}
