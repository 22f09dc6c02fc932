package cbor

import (
	"bytes"
	"embed"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

// rewrite reads any object with the Reader's own calls and writes it with the
// Writer's: the two are compared by what they do to the same bytes.
func rewrite(p []byte) ([]byte, Error, int) {
	var r Reader
	var w Writer
	r.Begin(p)
	w.Begin(make([]byte, len(p)))
	if len(p) > 1 && p[0] == 0xD8 && p[1] == 98 {
		r.Tag(98)
		w.Tag(98)
	}
	one(&r, &w)
	r.End()
	if r.Err() != 0 {
		return nil, r.Err(), r.Offset()
	}
	out, err := w.Done()
	return out, err, -1
}

func one(r *Reader, w *Writer) {
	if r.Err() != 0 {
		return
	}
	major := byte(0)
	if r.Pos() < len(r.p) {
		major = r.p[r.Pos()] &^ 31
	}
	switch major {
	case majorUint:
		v := r.Uint(1<<64 - 1)
		w.Uint(v)
	case majorNeg:
		w.Int(r.Int())
	case majorBytes:
		w.Bytes(r.Bytes(len(r.p)))
	case majorText:
		w.TextBytes(r.Text(len(r.p)))
	case majorArray:
		n := r.Array()
		w.Array(n)
		for ; n > 0; n-- {
			one(r, w)
		}
	case majorMap:
		n := r.Map()
		w.Map(n)
		for ; n > 0; n-- {
			w.Key(r.Key())
			one(r, w)
		}
	default:
		w.Bool(r.Bool())
	}
}

func TestSizes(t *testing.T) {
	t.Logf("Reader %d bytes, Writer %d bytes", unsafe.Sizeof(Reader{}), unsafe.Sizeof(Writer{}))
	if n := unsafe.Sizeof(Reader{}); n > 88 {
		t.Errorf("Reader takes %d bytes", n)
	}
}

// TestRFC8949 has the examples of RFC 8949, appendix A, all of them: 0 are those
// that the profile takes.
func TestRFC8949(t *testing.T) {
	taken := 0
	for _, c := range []struct {
		in   string
		want Error
	}{
		{"00", 0}, {"01", 0}, {"0a", 0}, {"17", 0}, {"1818", 0}, {"1819", 0}, {"1864", 0}, {"1903e8", 0},
		{"1a000f4240", 0}, {"1b000000e8d4a51000", 0}, {"1bffffffffffffffff", 0},
		{"c249010000000000000000", ErrBanned}, {"c349010000000000000000", ErrBanned},
		{"3bffffffffffffffff", ErrLimit}, // -2^64 is no int64
		{"20", 0}, {"29", 0}, {"3863", 0}, {"3903e7", 0},
		{"f90000", ErrBanned}, {"f98000", ErrBanned}, {"f93c00", ErrBanned}, {"fb3ff199999999999a", ErrBanned},
		{"f93e00", ErrBanned}, {"f97bff", ErrBanned}, {"fa47c35000", ErrBanned}, {"fa7f7fffff", ErrBanned},
		{"fb7e37e43c8800759c", ErrBanned}, {"f90001", ErrBanned}, {"f90400", ErrBanned}, {"f9c400", ErrBanned},
		{"fbc010666666666666", ErrBanned}, {"f97c00", ErrBanned}, {"f97e00", ErrBanned}, {"f9fc00", ErrBanned},
		{"fa7f800000", ErrBanned}, {"fa7fc00000", ErrBanned}, {"faff800000", ErrBanned},
		{"fb7ff0000000000000", ErrBanned}, {"fb7ff8000000000000", ErrBanned}, {"fbfff0000000000000", ErrBanned},
		{"f4", 0}, {"f5", 0}, {"f6", ErrBanned}, {"f7", ErrBanned}, {"f0", ErrBanned}, {"f8ff", ErrBanned},
		{"c074323031332d30332d32315432303a30343a30305a", ErrBanned}, {"c11a514b67b0", ErrBanned},
		{"c1fb41d452d9ec200000", ErrBanned}, {"d74401020304", ErrBanned}, {"d818456449455446", ErrBanned},
		{"d82076687474703a2f2f7777772e6578616d706c652e636f6d", ErrBanned},
		{"40", 0}, {"4401020304", 0}, {"60", 0}, {"6161", 0}, {"6449455446", 0}, {"62225c", 0}, {"62c3bc", 0},
		{"63e6b0b4", 0}, {"64f0908591", 0},
		{"80", 0}, {"83010203", 0}, {"8301820203820405", 0},
		{"98190102030405060708090a0b0c0d0e0f101112131415161718181819", 0},
		{"a0", 0}, {"a201020304", 0}, {"a26161016162820203", ErrKey}, {"826161a161626163", ErrKey},
		{"a56161614161626142616361436164614461656145", ErrKey},
		{"5f42010243030405ff", ErrForm}, {"7f657374726561646d696e67ff", ErrForm}, {"9fff", ErrForm},
		{"9f018202039f0405ffff", ErrForm}, {"9f01820203820405ff", ErrForm}, {"83018202039f0405ff", ErrForm},
		{"83019f0203ff820405", ErrForm},
		{"9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", ErrForm},
		{"bf61610161629f0203ffff", ErrForm}, {"826161bf61626163ff", ErrForm}, {"bf6346756ef563416d7421ff", ErrForm},
	} {
		p := unhex(t, c.in)
		out, err, _ := rewrite(p)
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.in, err, c.want)
		}
		if err == 0 {
			taken++
			if !bytes.Equal(out, p) {
				t.Errorf("%s: written again as %x", c.in, out)
			}
		}
	}
	if taken != 32 {
		t.Errorf("%d of the examples were taken, want 32", taken)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shelf has a file an input, named after its one defect, "OFFSET ERROR HEX". It is
// in the test's program: a chip has no folders.
//
//go:embed testdata/malformed/*.txt
var shelf embed.FS

func onShelf(t testing.TB) (names []string) {
	t.Helper()
	files, err := shelf.ReadDir("testdata/malformed")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files on the shelf, %v", len(files), err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestMalformed(t *testing.T) {
	names := map[string]Error{}
	for e := ErrEnd; e <= ErrUse; e++ {
		names[e.Error()] = e
	}
	for _, file := range onShelf(t) {
		t.Run(strings.TrimSuffix(file, ".txt"), func(t *testing.T) {
			offset, want, p := readMalformed(t, file, names)
			_, got, at := rewrite(p)
			if got != want || at != offset {
				t.Errorf("read: %v at %d, want %v at %d", got, at, want, offset)
			}
			var r Reader
			r.Begin(p)
			if len(p) > 0 && p[0] == 0xD8 {
				r.Tag(98)
			}
			r.Skip()
			r.End()
			if r.Err() != want || r.Offset() != offset {
				t.Errorf("skipped: %v at %d, want %v at %d", r.Err(), r.Offset(), want, offset)
			}
		})
	}
}

func readMalformed(t testing.TB, file string, names map[string]Error) (offset int, want Error, p []byte) {
	t.Helper()
	text, err := shelf.ReadFile("testdata/malformed/" + file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want offset, error, bytes in hex", len(lines))
	}
	if offset, err = strconv.Atoi(lines[0]); err != nil {
		t.Fatal(err)
	}
	want, ok := names[lines[1]]
	if !ok {
		t.Fatalf("no error %q", lines[1])
	}
	return offset, want, unhex(t, lines[2])
}

func TestFieldLimits(t *testing.T) {
	read := func(in string, f func(*Reader)) (Error, int) {
		var r Reader
		r.Begin(unhex(t, in))
		f(&r)
		return r.Err(), r.Offset()
	}
	for _, c := range []struct {
		name, in string
		read     func(*Reader)
		want     Error
	}{
		{"number at its limit", "1864", func(r *Reader) { r.Uint(100) }, 0},
		{"number above its limit", "1865", func(r *Reader) { r.Uint(100) }, ErrLimit},
		{"bytes at their limit", "42 0102", func(r *Reader) { r.Bytes(2) }, 0},
		{"bytes above their limit", "43 010203", func(r *Reader) { r.Bytes(2) }, ErrLimit},
		{"text above its limit", "63 414243", func(r *Reader) { r.Text(2) }, ErrLimit},
		{"fixed bytes", "42 0102", func(r *Reader) { r.Fixed(2) }, 0},
		{"fixed bytes too short", "41 01", func(r *Reader) { r.Fixed(2) }, ErrValue},
		{"fixed bytes too long", "43 010203", func(r *Reader) { r.Fixed(2) }, ErrLimit},
		{"text where bytes are due", "61 41", func(r *Reader) { r.Bytes(9) }, ErrType},
		{"bytes where text is due", "41 41", func(r *Reader) { r.Text(9) }, ErrType},
		{"negative where a number is due", "20", func(r *Reader) { r.Uint(9) }, ErrType},
		{"true where a number is due", "f5", func(r *Reader) { r.Uint(9) }, ErrType},
		{"null where a number is due", "f6", func(r *Reader) { r.Uint(9) }, ErrBanned},
		{"array where a map is due", "80", func(r *Reader) { r.Map() }, ErrType},
		{"map where an array is due", "a0", func(r *Reader) { r.Array() }, ErrType},
		{"text where a number of either sign is due", "61 41", func(r *Reader) { r.Int() }, ErrType},
		{"the smallest int64", "3b 7fffffffffffffff", func(r *Reader) {
			if r.Int() != -1<<63 {
				r.Fail(ErrValue)
			}
		}, 0},
		{"another tag", "d8 61 80", func(r *Reader) { r.Tag(98) }, ErrType},
		{"no tag", "84", func(r *Reader) { r.Tag(98) }, ErrType},
		{"a tag not in front", "81 c1", func(r *Reader) { r.Array(); r.Tag(1) }, ErrUse},
		{"unknown key from 0 up", "a1 00 01", func(r *Reader) { r.Map(); r.Unknown(r.Key()) }, ErrUnknown},
		{"unknown negative key", "a1 20 82 01 a1 00 f5", func(r *Reader) { r.Map(); r.Unknown(r.Key()); r.End() }, 0},
		{"unknown negative key with a malformed value", "a1 20 81 1801", func(r *Reader) { r.Map(); r.Unknown(r.Key()) }, ErrForm},
		{"a value where a key is due", "a1 00 01", func(r *Reader) { r.Map(); r.Uint(9) }, ErrUse},
		{"a key where a value is due", "a1 00 01", func(r *Reader) { r.Map(); r.Key(); r.Key() }, ErrUse},
		{"a key in an array", "81 00", func(r *Reader) { r.Array(); r.Key() }, ErrUse},
		{"a skip where a key is due", "a1 00 01", func(r *Reader) { r.Map(); r.Skip() }, ErrUse},
		{"an end before the end", "82 00 01", func(r *Reader) { r.Array(); r.Uint(9); r.End() }, ErrUse},
		{"a second object", "00 00", func(r *Reader) { r.Uint(9); r.Uint(9) }, ErrUse},
		{"the first error stays", "1801", func(r *Reader) { r.Uint(9); r.Fail(ErrValue); r.End() }, ErrForm},
	} {
		if got, _ := read(c.in, c.read); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if err, at := read("a2 00 01 05 01", func(r *Reader) { r.Map(); r.Key(); r.Uint(9); r.Unknown(r.Key()) }); err != ErrUnknown || at != 3 {
		t.Errorf("unknown key: %v at %d, want it at the key", err, at)
	}
}

func TestAfterAnError(t *testing.T) {
	var r Reader
	r.Begin(unhex(t, "f6 83 010203"))
	if r.Map() != 0 || r.Array() != 0 || r.Key() != 0 || r.Uint(9) != 0 || r.Int() != 0 || r.Bytes(9) != nil ||
		r.Text(9) != nil || r.Fixed(1) != nil || r.Bool() || r.Raw(0) != nil {
		t.Error("something was read behind an error")
	}
	r.Skip()
	r.Tag(1)
	r.Unknown(3)
	r.End()
	if r.Err() != ErrBanned || r.Offset() != 0 || r.Pos() > 1 {
		t.Errorf("%v at %d, next %d", r.Err(), r.Offset(), r.Pos())
	}
}

func TestViews(t *testing.T) {
	p := unhex(t, "83 42 0102 62 c3bc 82 00 f5")
	var r Reader
	r.Begin(p)
	r.Array()
	b := r.Bytes(9)
	text := r.Text(9)
	from := r.Pos()
	r.Skip()
	raw := r.Raw(from)
	r.End()
	if r.Err() != 0 || &b[0] != &p[2] || &text[0] != &p[5] || cap(b) != 2 || cap(text) != 2 {
		t.Errorf("%v: % x, % x are no views", r.Err(), b, text)
	}
	if !bytes.Equal(raw, p[7:]) || r.Raw(-1) != nil || r.Raw(len(p)+1) != nil {
		t.Errorf("raw % x", raw)
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		room  int
		write func(*Writer)
		want  Error
	}{
		{"nothing", 9, func(w *Writer) {}, ErrUse},
		{"a key that repeats", 9, func(w *Writer) { w.Map(2); w.Key(1); w.Uint(0); w.Key(1) }, ErrOrder},
		{"a key that falls", 9, func(w *Writer) { w.Map(2); w.Key(-1); w.Uint(0); w.Key(1) }, ErrOrder},
		{"a key too large", 9, func(w *Writer) { w.Map(1); w.Key(1 << 16) }, ErrKey},
		{"a key too small", 9, func(w *Writer) { w.Map(1); w.Key(-1<<16 - 1) }, ErrKey},
		{"a missing member", 9, func(w *Writer) { w.Array(2); w.Uint(0) }, ErrUse},
		{"a member too many", 9, func(w *Writer) { w.Array(1); w.Uint(0); w.Uint(0) }, ErrUse},
		{"a value where a key is due", 9, func(w *Writer) { w.Map(1); w.Uint(0) }, ErrUse},
		{"a key where a value is due", 9, func(w *Writer) { w.Map(1); w.Key(0); w.Key(1) }, ErrUse},
		{"a negative count", 9, func(w *Writer) { w.Array(-1) }, ErrUse},
		{"a tag inside", 9, func(w *Writer) { w.Array(1); w.Tag(1) }, ErrUse},
		{"too deep", 9, func(w *Writer) { w.Array(1); w.Array(1); w.Array(1); w.Array(1); w.Array(0) }, ErrDepth},
		{"text that is not UTF-8", 9, func(w *Writer) { w.Text("\xff") }, ErrText},
		{"bytes that are no text", 9, func(w *Writer) { w.TextBytes([]byte{0xC0, 0x80}) }, ErrText},
		{"no room for a head", 2, func(w *Writer) { w.Uint(256) }, ErrSpace},
		{"no room for bytes", 2, func(w *Writer) { w.Bytes([]byte{1, 2}) }, ErrSpace},
		{"no room for text", 2, func(w *Writer) { w.Text("ab") }, ErrSpace},
		{"no room for text bytes", 2, func(w *Writer) { w.TextBytes([]byte("ab")) }, ErrSpace},
		{"no room for raw", 2, func(w *Writer) { w.Raw([]byte{0x42, 1, 2}) }, ErrSpace},
		{"no room for a key", 1, func(w *Writer) { w.Map(1); w.Key(0); w.Bool(true) }, ErrSpace},
	} {
		var w Writer
		w.Begin(make([]byte, c.room))
		c.write(&w)
		if p, err := w.Done(); err != c.want || p != nil {
			t.Errorf("%s: %v, % x, want %v", c.name, err, p, c.want)
		}
		w.Uint(1)
		w.Text("a")
		w.Raw([]byte{0})
		if _, err := w.Done(); err != c.want && c.name != "nothing" {
			t.Errorf("%s: the first error did not stay: %v", c.name, err)
		}
	}
}

func TestWriterWrites(t *testing.T) {
	var buf [64]byte
	var w Writer
	w.Begin(buf[:])
	w.Tag(98)
	w.Map(7)
	w.Key(0)
	w.Int(-8)
	w.Key(23)
	w.Text("ü")
	w.Key(24)
	w.TextBytes(nil)
	w.Key(maxKey)
	w.Bool(true)
	w.Key(-1)
	w.Bool(false)
	w.Key(-2)
	w.Raw([]byte{0x80})
	w.Key(minKey)
	w.Bytes([]byte{1})
	p, err := w.Done()
	want := unhex(t, "d862 a7 00 27 17 62c3bc 1818 60 19ffff f5 20 f4 21 80 39ffff 4101")
	if err != 0 || !bytes.Equal(p, want) {
		t.Errorf("%v: % x\nwant % x", err, p, want)
	}
}

func TestText(t *testing.T) {
	for v := 0; v < 1<<16; v++ { // every pair, and every pair behind each kind of first byte
		for _, p := range [][]byte{{byte(v >> 8), byte(v)}, {0xE0, byte(v >> 8), byte(v)}, {0xED, byte(v >> 8), byte(v)},
			{0xE1, byte(v >> 8), byte(v)}, {0xF0, byte(v >> 8), byte(v), 0x80}, {0xF4, byte(v >> 8), byte(v), 0xBF}, {0xF2, byte(v >> 8), 0x80, byte(v)}} {
			if validText(p) != utf8.Valid(p) {
				t.Fatalf("% x: %v", p, validText(p))
			}
		}
	}
}

func TestErrorsHaveTexts(t *testing.T) {
	seen := map[string]bool{}
	for e := Error(0); e <= ErrUse+1; e++ {
		var err error = e
		if seen[err.Error()] {
			t.Errorf("error %d has the text of another: %s", e, err)
		}
		seen[err.Error()] = true
	}
	if !errors.Is(ErrUse, ErrUse) {
		t.Error("errors do not compare")
	}
}

func TestNoAllocation(t *testing.T) {
	p := unhex(t, "a3 00 82 01 20 01 62 c3bc 20 a1 00 f5")
	buf := make([]byte, 64)
	var r Reader
	var w Writer
	if n := chiptest.Allocs(10, func() {
		r.Begin(p)
		w.Begin(buf)
		one(&r, &w)
		if _, err := w.Done(); err != 0 {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRewrite: what is taken is written again the same; Skip and the typed calls
// agree; nothing panics.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{"a3 00 82 01 20 01 62 c3bc 20 a1 00 f5", "d862 84 40 a0 41 00 80", "83 1818 19 0100 1a 00010000",
		"81 81 81 81 1b 0000000100000000", "a2 20 00 21 00", "a2 00 01 1900ff 02"} {
		f.Add(unhex(f, s))
	}
	for _, file := range onShelf(f) {
		text, err := shelf.ReadFile("testdata/malformed/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(unhex(f, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[2]))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		out, err, at := rewrite(p)
		if err == 0 && !bytes.Equal(out, p) {
			t.Fatalf("% x was written again as % x", p, out)
		}
		var r Reader
		r.Begin(p)
		if len(p) > 1 && p[0] == 0xD8 && p[1] == 98 {
			r.Tag(98)
		}
		r.Skip()
		r.End()
		// Skip has no limit of 63 bits for negative numbers: nothing is made of them.
		if r.Err() != err && err != ErrLimit {
			t.Fatalf("% x: read %v at %d, skipped %v at %d", p, err, at, r.Err(), r.Offset())
		}
	})
}
