package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Prove reads src and ends with ErrDamaged in the place of io.EOF where the bytes
// were not those of want: who stores what it reads to an end stores nothing else.
func Prove(src io.Reader, want fleet.Digest) io.Reader {
	return &prover{src: src, want: want, sha: sha256.New()}
}

type prover struct {
	src  io.Reader
	want fleet.Digest
	sha  hash.Hash
	err  error // sticks
}

func (p *prover) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.src.Read(b)
	p.sha.Write(b[:n])
	if errors.Is(err, io.EOF) {
		if have := fleet.Digest(p.sha.Sum(nil)); have != p.want {
			err = fmt.Errorf("%w: their SHA-256 is %s", ErrDamaged, have)
		}
	}
	p.err = err
	return n, err
}
