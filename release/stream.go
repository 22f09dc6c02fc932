package release

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/stream"
)

// BuildStream writes the stream file of the size bytes of image, cut into chunks of
// chunk bytes (docs/format/stream.md), front to back. It reads image twice, since
// every record holds the hash of what is behind it, and keeps 32 bytes a record.
// What it writes has passed the verifier of a device: an image that changes
// meanwhile is an error, and w then holds part of a file.
//
// root is what a manifest or a sheet signs, file the SHA-256 that names the file,
// length its bytes.
func BuildStream(w io.Writer, image io.ReaderAt, size, chunk uint32) (root, file [32]byte, length int64, err error) {
	fail := func(err error) ([32]byte, [32]byte, int64, error) { return [32]byte{}, [32]byte{}, 0, err }
	s, hashes, err := chain(image, size, chunk)
	if err != nil {
		return fail(err)
	}
	root = hashes[0]
	var v stream.Verifier
	var h digest.SHA256
	if e := v.Begin(s, &root); e != 0 {
		return fail(e)
	}
	sum := sha256.New()
	record := make([]byte, chunk+stream.HashSize)
	for i := range s.Records() {
		n := s.ChunkLen(i)
		if err := readChunk(image, record[:n], s, i); err != nil {
			return fail(err)
		}
		if i < s.Records()-1 {
			copy(record[n:], hashes[i+1][:])
		}
		r := record[:s.RecordLen(i)]
		if e := v.Accept(r, &h); e != 0 {
			return fail(fmt.Errorf("chunk %d changed while it was read: %w", i, e))
		}
		sum.Write(r)
		if _, err := w.Write(r); err != nil {
			return fail(err)
		}
		length += int64(len(r))
	}
	sum.Sum(file[:0])
	return root, file, length, nil
}

// StreamRoot is the root of the stream that BuildStream would write.
func StreamRoot(image io.ReaderAt, size, chunk uint32) ([32]byte, error) {
	_, hashes, err := chain(image, size, chunk)
	if err != nil {
		return [32]byte{}, err
	}
	return hashes[0], nil
}

// chain is the hashes of all records, which are made from the last to the first.
func chain(image io.ReaderAt, size, chunk uint32) (stream.Shape, [][32]byte, error) {
	s := stream.Shape{Size: size, Chunk: chunk}
	if !s.Valid() {
		return s, nil, fmt.Errorf("%d bytes in chunks of %d: %w", size, chunk, stream.ErrShape)
	}
	hashes := make([][32]byte, s.Records())
	buf := make([]byte, chunk)
	var h digest.SHA256
	var next []byte
	for i := s.Records(); i > 0; {
		i--
		p := buf[:s.ChunkLen(i)]
		if err := readChunk(image, p, s, i); err != nil {
			return s, nil, err
		}
		stream.Hash(&h, s, i, p, next, &hashes[i])
		next = hashes[i][:]
	}
	return s, hashes, nil
}

func readChunk(image io.ReaderAt, p []byte, s stream.Shape, i uint32) error {
	off := int64(i) * int64(s.Chunk)
	n, err := image.ReadAt(p, off)
	if n == len(p) {
		return nil // with io.EOF too, at the end
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("image at %d: %w", off, err)
}
