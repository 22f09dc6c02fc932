package inspect

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
)

func TestRawImage(t *testing.T) {
	img := make([]byte, 100)
	binary.LittleEndian.PutUint32(img[12:], 0x4000)
	binary.LittleEndian.PutUint32(img[16:], 0x4021)
	binary.LittleEndian.PutUint32(img[20:], 0x20004000)
	if err := boot.SealRaw(img); err != nil {
		t.Fatal(err)
	}
	r := File(append(bytes.Clone(img), 0xFF, 0xFF))
	if r.Kind != KindRaw || r.Error != "" || r.Raw == nil {
		t.Fatalf("%+v", r)
	}
	want := RawImage{Format: 1, Length: 100, Load: 0x4000, Entry: 0x4021, Stack: 0x20004000, CRC: binary.LittleEndian.Uint32(img[28:]), CRCOK: true, Trailing: 2}
	if *r.Raw != want {
		t.Errorf("%+v, want %+v", *r.Raw, want)
	}
	for _, c := range []struct {
		name string
		data []byte
		at   int64
		head bool // what the header says is shown all the same
	}{
		{"cut short", img[:60], 60, true},
		{"cut in the header", img[:20], 20, false},
		{"a bit", flip(img, 70), 28, true},
		{"a newer format", flip(img, 4), 4, false},
		{"another stack", flip(img, 20), 12, false},
	} {
		r := File(c.data)
		if r.Kind != KindRaw || r.Error == "" || r.Offset == nil || *r.Offset != c.at || (r.Raw != nil) != c.head || c.head && r.Raw.CRCOK {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func flip(p []byte, at int) []byte {
	q := bytes.Clone(p)
	q[at] ^= 1
	return q
}
