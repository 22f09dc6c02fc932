package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/sim/board"
)

func TestVerifyWhole(t *testing.T) {
	file, trust := testFile(t)
	var kept bytes.Buffer
	var told int
	o := Options{Digests: true, Progress: func(string, int64, int64) { told++ },
		Derived: func(int, *Sheet, []byte) (io.Writer, error) { return &kept, nil }}
	// One byte at a time, and with the end in the same call as the last bytes.
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(file), "bytes": iotest.OneByteReader(bytes.NewReader(file)),
		"data and end": iotest.DataErrReader(bytes.NewReader(file))} {
		kept.Reset()
		c, err := Verify(context.Background(), r, trust, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Manifest.Version != "1.2.0" || c.Manifest.Sequence != 7 || len(c.Signers) != 1 || !c.Signers[0].Equal(public("release")) ||
			c.Trust.Version != 1 || len(c.Raw) != 2 || len(c.Derived) != 1 {
			t.Fatalf("%s: %+v", name, c)
		}
		if c.Raw[0].Digest != Hash(sha256.Sum256(rawFile(t, testImage(2600), 1024))) || c.Raw[0].Root != c.Manifest.Image.Streams[0].Root ||
			c.Derived[0].Digest != Hash(sha256.Sum256(kept.Bytes())) || c.Raw[0].Length != 2600+64 {
			t.Errorf("%s: streams: %+v %+v", name, c.Raw, c.Derived[0])
		}
	}
	if told == 0 {
		t.Error("no progress was told")
	}
}

// TestOtherTarPrograms: the archive is what archive/tar reads, and what it writes
// with the same members.
func TestOtherTarPrograms(t *testing.T) {
	file, _ := testFile(t)
	var again bytes.Buffer
	w := tar.NewWriter(&again)
	r := tar.NewReader(bytes.NewReader(file))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name, Size: h.Size, Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), file) {
		t.Error("archive/tar writes other bytes")
	}
}

// TestEveryByteCounts changes each byte of a release file in turn: each change is
// refused, and none is taken for a file without signatures.
func TestEveryByteCounts(t *testing.T) {
	file, trust := testFile(t)
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(file); i += step {
		p := bytes.Clone(file)
		p[i] ^= 0x01
		if _, err := Verify(context.Background(), bytes.NewReader(p), trust, Options{Spool: new(memSpool)}); err == nil {
			t.Fatalf("byte %d of %d may be changed", i, len(file))
		}
	}
}

// TestEveryCut ends the file at every place, and adds to it.
func TestEveryCut(t *testing.T) {
	file, trust := testFile(t)
	step := 1
	if testing.Short() {
		step = 7
	}
	check := func(p []byte) error {
		_, err := Verify(context.Background(), bytes.NewReader(p), trust, Options{Spool: new(memSpool)})
		return err
	}
	for n := 0; n < len(file); n += step {
		if check(file[:n]) == nil {
			t.Fatalf("%d of %d bytes are enough", n, len(file))
		}
	}
	if check(append(bytes.Clone(file), 0)) == nil || check(append(bytes.Clone(file), make([]byte, 512)...)) == nil {
		t.Error("bytes behind the archive are taken")
	}
	if err := check(file); err != nil {
		t.Error(err)
	}
}

type memSpool struct{ p []byte }

func (m *memSpool) Write(p []byte) (int, error) { m.p = append(m.p, p...); return len(p), nil }
func (m *memSpool) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.p).ReadAt(p, off)
}

// members packs what is given, whatever it is.
func members(t *testing.T, list ...any) []byte {
	t.Helper()
	var out bytes.Buffer
	w := &tarWriter{w: &out}
	for i := 0; i < len(list); i += 2 {
		p := list[i+1].([]byte)
		w.member(list[i].(string), bytes.NewReader(p), int64(len(p)))
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestMalformedFiles: the shelf, one defect each.
func TestMalformedFiles(t *testing.T) {
	image := testImage(3000)
	m := testManifest(t, image, 1024)
	keys, man := sealed(t, manifest.KindKeys, testList(), "root"), sealed(t, manifest.KindManifest, m, "release")
	patch := testImage(1300)
	sheet, derived := sealed(t, manifest.KindSheet, testSheet(t, m, patch), "stream"), rawFile(t, patch, 512)
	change := func(f func(m *Manifest)) []byte {
		c := *m
		c.Image.Streams = append([]Raw(nil), m.Image.Streams...)
		f(&c)
		return sealed(t, manifest.KindManifest, &c, "release")
	}
	sheetWith := func(f func(s *Sheet), key string) []byte {
		s := *testSheet(t, m, patch)
		f(&s)
		return sealed(t, manifest.KindSheet, &s, key)
	}
	header := func(off int, v byte) []byte {
		p := members(t, nameKeyList, keys, nameManifest, man, nameImage, image)
		p[off] = v
		return p
	}
	many := func(n int) []byte {
		list := []any{nameKeyList, keys, nameManifest, man, nameImage, image}
		for i := range n {
			list = append(list, sheetName(i), sheet, streamName(i), derived)
		}
		return members(t, list...)
	}
	cases := []struct {
		name string
		p    []byte
		want string // part of the error; "" is good
	}{
		{"good", members(t, nameKeyList, keys, nameManifest, man, nameImage, image), ""},
		{"good, with sixteen streams", many(16), ""},
		{"seventeen streams", many(17), "unexpected member"},
		{"empty", nil, "ends early"},
		{"an empty archive", members(t), "ends before manifest.cose"},
		{"no manifest", members(t, nameKeyList, keys, nameImage, image), "unexpected member"},
		{"no image", members(t, nameKeyList, keys, nameManifest, man), "ends before image.bin"},
		{"image first", members(t, nameImage, image), "unexpected member"},
		{"key list last", members(t, nameManifest, man, nameImage, image, nameKeyList, keys), "there is no key list"},
		{"key list twice", members(t, nameKeyList, keys, nameKeyList, keys, nameManifest, man, nameImage, image), "unexpected member"},
		{"manifest twice", members(t, nameKeyList, keys, nameManifest, man, nameManifest, man, nameImage, image), "unexpected member"},
		{"image twice", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, nameImage, image), "unexpected member"},
		{"unknown member", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, "README", []byte("x")), "unexpected member"},
		{"a path", members(t, "../keylist.cose", keys), "unexpected member"},
		{"sheet without a stream", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(0), sheet), "ends before stream-00.bin"},
		{"stream without a sheet", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, streamName(0), derived), "unexpected member"},
		{"sheets not from 0", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(1), sheet, streamName(1), derived), "unexpected member"},
		{"key list empty", members(t, nameKeyList, []byte{}, nameManifest, man, nameImage, image), "1 to 16384"},
		{"key list over-long", members(t, nameKeyList, make([]byte, 16<<10+1)), "1 to 16384"},
		{"mode", header(100+5, '7'), "header of keylist.cose"},
		{"user", header(108, '1'), "header of keylist.cose"},
		{"time", header(136+5, '1'), "header of keylist.cose"},
		{"type", header(156, '5'), "header of keylist.cose"},
		{"link name", header(157, 'x'), "header of keylist.cose"},
		{"user's name", header(265, 'r'), "header of keylist.cose"},
		{"prefix", header(345, 'x'), "header of keylist.cose"},
		{"version of the format", header(263, ' '), "header of keylist.cose"},
		{"padding", header(512+len(keys), 1), "padding is not zero"},
		{"image longer", members(t, nameKeyList, keys, nameManifest, man, nameImage, append(bytes.Clone(image), 0)), "the manifest says 3000"},
		{"image shorter", members(t, nameKeyList, keys, nameManifest, man, nameImage, image[:2999]), "the manifest says 3000"},
		{"another image", members(t, nameKeyList, keys, nameManifest, man, nameImage, testImage(3001)[:3000]), "SHA-256"},
		{"another root", members(t, nameKeyList, keys, nameManifest, change(func(m *Manifest) { m.Image.Streams[0].Root[5] ^= 1 }), nameImage, image), "root"},
		{"another second root", members(t, nameKeyList, keys, nameManifest,
			change(func(m *Manifest) { m.Image.Streams = append(m.Image.Streams, Raw{Chunk: 256}) }), nameImage, image), "chunks of 256"},
		{"no ESP image in format ESP", members(t, nameKeyList, keys, nameManifest,
			change(func(m *Manifest) { m.Image.Format, m.Image.Chip = manifest.FormatESP, 0 }), nameImage, image), "bad magic byte"},
		{"another epoch", members(t, nameKeyList, keys, nameManifest, change(func(m *Manifest) { m.Epoch = 3 }), nameImage, image), "epoch"},
		{"below the floor", members(t, nameKeyList, keys, nameManifest, change(func(m *Manifest) { m.SecurityVersion = 0 }), nameImage, image), "floor"},
		{"another product", members(t, nameKeyList, keys, nameManifest, change(func(m *Manifest) { m.Product = "acme/lamp" }), nameImage, image), "does not name"},
		{"one signature of two", members(t, nameKeyList, keys, nameManifest, change(func(m *Manifest) { m.Product, m.Epoch = "acme/valve", 0 }), nameImage, image), "1 of 2"},
		{"signed by a stream key", members(t, nameKeyList, keys, nameManifest, sealed(t, manifest.KindManifest, m, "stream"), nameImage, image), "stream sheets only"},
		{"signed by a stranger", members(t, nameKeyList, keys, nameManifest, sealed(t, manifest.KindManifest, m, "stranger"), nameImage, image), "not in the key list"},
		{"key list by a stranger", members(t, nameKeyList, sealed(t, manifest.KindKeys, testList(), "stranger"), nameManifest, man, nameImage, image), "not signed by enough of the roots"},
		{"a manifest as key list", members(t, nameKeyList, man, nameManifest, man, nameImage, image), "cbor"},
		{"sheet by a stranger", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(0), sheetWith(func(*Sheet) {}, "stranger"), streamName(0), derived), "sheet-00.cose"},
		{"sheet of another image", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(0),
			sheetWith(func(s *Sheet) { s.ImageRoot[0] ^= 1 }, "stream"), streamName(0), derived), "for an image with the root"},
		{"stream of another length", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(0), sheet, streamName(0), derived[1:]), "by its sheet"},
		{"stream with another root", members(t, nameKeyList, keys, nameManifest, man, nameImage, image, sheetName(0),
			sheetWith(func(s *Sheet) { s.Root[0] ^= 1 }, "second"), streamName(0), derived), "record 0"},
	}
	for _, c := range cases {
		_, err := Verify(context.Background(), bytes.NewReader(c.p), mustRoots(t, 1, "root"), Options{Spool: new(memSpool)})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && !hasText(err, c.want):
			t.Errorf("%s: %v, want ... %s ...", c.name, err, c.want)
		}
	}
}

// TestVerifyESP wants the bootloader's checks of an image in ESP format.
func TestVerifyESP(t *testing.T) {
	image, err := board.BuildImage(board.ImageSpec{Size: 64 << 10, Chip: esp32.ChipESP32, Project: "p", Version: "1", Behave: "ok", Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	build := func(image []byte, chip uint16) error {
		m := testManifest(t, image, 4096)
		m.Image.Format, m.Image.Chip = manifest.FormatESP, chip
		p := members(t, nameKeyList, sealed(t, manifest.KindKeys, testList(), "root"), nameManifest, sealed(t, manifest.KindManifest, m, "release"), nameImage, image)
		_, err := Verify(context.Background(), bytes.NewReader(p), mustRoots(t, 1, "root"), Options{})
		return err
	}
	if err := build(image, esp32.ChipESP32); err != nil {
		t.Error(err)
	}
	if err := build(image, esp32.ChipESP32C3); !errors.Is(err, esp32.ErrChip) {
		t.Errorf("another chip: %v", err)
	}
	image[5000] ^= 1
	if err := build(image, esp32.ChipESP32); !errors.Is(err, esp32.ErrChecksum) {
		t.Errorf("a spoiled image: %v", err)
	}
	if _, err := CheckImage(bytes.NewReader(image)); !errors.Is(err, esp32.ErrChecksum) {
		t.Errorf("CheckImage of a spoiled image: %v", err)
	}
}

// endless is an archive that promises the largest image there is.
func TestBoundedMemory(t *testing.T) {
	m := testManifest(t, testImage(3000), 256)
	m.Image.Size = MaxImage
	var head bytes.Buffer
	w := &tarWriter{w: &head}
	keys, man := sealed(t, manifest.KindKeys, testList(), "root"), sealed(t, manifest.KindManifest, m, "release")
	w.member(nameKeyList, bytes.NewReader(keys), int64(len(keys)))
	w.member(nameManifest, bytes.NewReader(man), int64(len(man)))
	h := tarHeader(nameImage, MaxImage)
	head.Write(h[:])
	stop := errors.New("stop")
	r := io.MultiReader(&head, io.LimitReader(zeros{}, 8<<20), iotest.ErrReader(stop))
	before := heap(t)
	_, err := Verify(context.Background(), r, mustRoots(t, 1, "root"), Options{})
	if !errors.Is(err, stop) {
		t.Fatalf("%v", err)
	}
	if grew := heap(t) - before; grew > 2<<20 {
		t.Errorf("8 MiB of an image took %d bytes of heap", grew)
	}
	m.Image.Size = MaxImage + 1
	var over bytes.Buffer
	w = &tarWriter{w: &over}
	man = sealed(t, manifest.KindManifest, m, "release")
	w.member(nameKeyList, bytes.NewReader(keys), int64(len(keys)))
	w.member(nameManifest, bytes.NewReader(man), int64(len(man)))
	h = tarHeader(nameImage, MaxImage+1)
	over.Write(h[:])
	if _, err := Verify(context.Background(), &over, mustRoots(t, 1, "root"), Options{}); !hasText(err, "16777216 are allowed") {
		t.Errorf("an image above the limit: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// heap counts what was ever allocated: garbage counts too, so that a buffer that
// grows with the file can't hide.
func heap(t *testing.T) int64 {
	t.Helper()
	return allocated()
}

func TestVerifyStops(t *testing.T) {
	file, trust := testFile(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, bytes.NewReader(file), trust, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Verify(context.Background(), bytes.NewReader(file), nil, Options{}); !errors.Is(err, ErrNoList) {
		t.Errorf("without trust: %v", err)
	}
	c, err := Verify(context.Background(), bytes.NewReader(file), nil, Options{Unsigned: true})
	if err != nil || c.Manifest.Sequence != 7 || c.Signers != nil || c.Trust != nil {
		t.Errorf("unsigned: %v %+v", err, c)
	}
	short := &File{Manifest: []byte{1}, Image: strings.NewReader("abc"), Size: 4}
	if err := Write(io.Discard, short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an image shorter than said: %v", err)
	}
}
