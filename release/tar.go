package release

import (
	"bytes"
	"fmt"
	"io"
)

// The archive of docs/format/release-file.md: POSIX ustar with one header for
// each name and size. Headers are compared whole, not parsed field by field:
// what differs from the one that would be written is refused.

const (
	tarBlock = 512
	maxImage = 16 << 20 // bytes, as on every way in
	// maxStream is a payload of maxImage with the hashes between its smallest chunks.
	maxStream = maxImage + 32*(maxImage/256)
	// MaxSheets of one release file.
	MaxSheets = 16
)

// MaxImage is the largest image that a release has, in bytes.
const MaxImage = maxImage

// The members' names.
const (
	nameKeyList  = "keylist.cose"
	nameManifest = "manifest.cose"
	nameImage    = "image.bin"
)

func sheetName(i int) string  { return fmt.Sprintf("sheet-%02d.cose", i) }
func streamName(i int) string { return fmt.Sprintf("stream-%02d.bin", i) }

// tarHeader is the one header of a member.
func tarHeader(name string, size int64) [tarBlock]byte {
	var h [tarBlock]byte
	copy(h[0:100], name)
	copy(h[100:], "0000644\x00")              // mode
	copy(h[108:], "0000000\x00")              // user
	copy(h[116:], "0000000\x00")              // group
	copy(h[124:], fmt.Sprintf("%011o", size)) // NUL behind
	copy(h[136:], "00000000000\x00")          // time
	copy(h[148:], "        ")                 // the checksum counts as spaces
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x00") // device numbers
	copy(h[337:], "0000000\x00")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// tarWriter writes members; the error stays.
type tarWriter struct {
	w   io.Writer
	err error
}

func (t *tarWriter) member(name string, r io.Reader, size int64) {
	if t.err != nil {
		return
	}
	h := tarHeader(name, size)
	if _, t.err = t.w.Write(h[:]); t.err != nil {
		return
	}
	n, err := io.CopyN(t.w, r, size)
	if err != nil {
		t.err = fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, ended(err))
		return
	}
	_, t.err = t.w.Write(make([]byte, (tarBlock-size%tarBlock)%tarBlock))
}

func (t *tarWriter) close() error {
	if t.err == nil {
		_, t.err = t.w.Write(make([]byte, 2*tarBlock))
	}
	return t.err
}

// tarReader reads members in the order that is allowed.
type tarReader struct {
	r    io.Reader
	off  int64 // of the next byte of the archive
	left int64 // of the present member
	pad  int64 // behind it
	last string
	n    int // sheets so far
}

// FileError is what is wrong with the archive, and where.
type FileError struct {
	Offset int64
	Err    error
}

func (e *FileError) Error() string {
	return fmt.Sprintf("release file: %v, at offset %d", e.Err, e.Offset)
}
func (e *FileError) Unwrap() error { return e.Err }

func (t *tarReader) fail(off int64, format string, args ...any) error {
	return &FileError{Offset: off, Err: fmt.Errorf(format, args...)}
}

// allowed are the members that may come now; "" is the end.
func (t *tarReader) allowed() []string {
	switch {
	case t.last == "":
		return []string{nameKeyList, nameManifest}
	case t.last == nameKeyList:
		return []string{nameManifest}
	case t.last == nameManifest:
		return []string{nameImage}
	case t.last == sheetName(t.n-1):
		return []string{streamName(t.n - 1)}
	case t.n < MaxSheets:
		return []string{"", sheetName(t.n)}
	}
	return []string{""}
}

func limitOf(name string) int64 {
	switch {
	case name == nameImage:
		return maxImage
	case len(name) > 7 && name[:7] == "stream-":
		return maxStream
	}
	return MaxEnvelope
}

// next goes to the next member, or answers io.EOF at the archive's proper end.
// The member before has been read.
func (t *tarReader) next() (name string, size int64, err error) {
	if t.left > 0 {
		return "", 0, t.fail(t.off, "%s was not read to its end", t.last)
	}
	if err := t.zeros(t.pad, "the padding is not zero"); err != nil {
		return "", 0, err
	}
	t.pad = 0
	at := t.off
	var h [tarBlock]byte
	if err := t.full(h[:]); err != nil {
		return "", 0, err
	}
	if h == [tarBlock]byte{} {
		return "", 0, t.end(at)
	}
	for _, name := range t.allowed() {
		if name == "" {
			continue
		}
		size, ok := octal(h[124:135])
		if !ok || h != tarHeader(name, size) {
			continue
		}
		if size == 0 || size > limitOf(name) {
			return "", 0, t.fail(at, "%s has %d bytes, 1 to %d are allowed", name, size, limitOf(name))
		}
		t.left, t.pad, t.last = size, (tarBlock-size%tarBlock)%tarBlock, name
		if name == sheetName(t.n) {
			t.n++
		}
		return name, size, nil
	}
	field, _, _ := bytes.Cut(h[:100], []byte{0})
	for _, name := range t.allowed() {
		if name != "" && string(field) == name {
			return "", 0, t.fail(at, "the header of %s is not as it must be", name)
		}
	}
	return "", 0, t.fail(at, "unexpected member %.100q, allowed now: %q", field, t.allowed())
}

// end wants the second block of zeros and nothing behind it.
func (t *tarReader) end(at int64) error {
	if t.allowed()[0] != "" {
		return t.fail(at, "the archive ends before %s", t.allowed()[len(t.allowed())-1])
	}
	if err := t.zeros(tarBlock, "a second block of zeros is missing"); err != nil {
		return err
	}
	var b [1]byte
	switch n, err := io.ReadFull(t.r, b[:]); {
	case n > 0:
		return t.fail(t.off, "bytes behind the archive")
	case err != io.EOF:
		return err
	}
	return io.EOF
}

func (t *tarReader) zeros(n int64, msg string) error {
	b := make([]byte, n)
	at := t.off
	if err := t.full(b); err != nil {
		return err
	}
	for i := range b {
		if b[i] != 0 {
			return t.fail(at+int64(i), "%s", msg)
		}
	}
	return nil
}

func (t *tarReader) full(p []byte) error {
	n, err := io.ReadFull(t.r, p)
	t.off += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return t.fail(t.off, "the archive ends early")
	}
	return err
}

// Read reads the present member.
func (t *tarReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	t.off += int64(n)
	if err == io.EOF && t.left > 0 {
		err = t.fail(t.off, "the archive ends early")
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// all reads the present member whole. Its size was held against its limit.
func (t *tarReader) all() ([]byte, error) {
	p := make([]byte, t.left)
	_, err := io.ReadFull(t, p)
	return p, err
}

func octal(p []byte) (int64, bool) {
	var v int64
	for _, c := range p {
		if c < '0' || c > '7' {
			return 0, false
		}
		v = v<<3 | int64(c-'0')
	}
	return v, true
}
