package sqlstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Purposes of keys. A device's v1 key never serves another wire (trust.md,
// Exchange): the v1 chunk MAC signs bytes that the publisher chose.
const (
	purposeV1     = "v1"
	purposeNative = "native"
)

// Kinds of owners.
const (
	ownerDevice  = "device"
	ownerProduct = "product"
)

// sealer encrypts what must not be readable in a copy of the database. The
// associated data names what a sealed text is and whose, so that a row moved to
// another owner does not open.
type sealer struct {
	aead   cipher.AEAD
	random io.Reader
}

func newSealer(secret [32]byte, random io.Reader) (sealer, error) {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead, random}, err
}

// seal returns nonce, ciphertext and tag. A random nonce of 96 bits is safe for
// 2^32 keys under one secret (NIST SP 800-38D, 8.3).
func (s sealer) seal(text []byte, about string) ([]byte, error) {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(text)+s.aead.Overhead())
	if _, err := io.ReadFull(s.random, nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return s.aead.Seal(nonce, nonce, text, []byte(about)), nil
}

func (s sealer) open(sealed []byte, about string) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("sealed text too short")
	}
	return s.aead.Open(nil, sealed[:n], sealed[n:], []byte(about))
}

// aboutKey is a key's associated data. No part can hold a zero byte.
func aboutKey(purpose, kind, owner, id string) string {
	return "runnel/key/1\x00" + purpose + "\x00" + kind + "\x00" + owner + "\x00" + id
}

const (
	sealAbout = "runnel/seal/1"
	sealText  = "runnel"
)

// checkSecret seals a known text in a new database and opens it in every other.
func (s *Store) checkSecret(ctx context.Context) error {
	var sealed []byte
	err := s.db.Row(ctx, "SELECT sealed FROM seal WHERE id = 1").Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		if sealed, err = s.seal.seal([]byte(sealText), sealAbout); err != nil {
			return err
		}
		// Of two servers that start at once one seals the text, and both open it.
		err = s.write(ctx, func(t *tx) error {
			if _, err := t.Exec("INSERT INTO seal (id, sealed) VALUES (1, ?) ON CONFLICT DO NOTHING", sealed); err != nil {
				return err
			}
			return t.Row("SELECT sealed FROM seal WHERE id = 1").Scan(&sealed)
		})
	}
	if err != nil {
		return s.db.Wrap("secret", err)
	}
	if err := s.openSeal(sealed); err != nil {
		return err
	}
	return nil
}

// openSeal finds the wrong secret.
func (s *Store) openSeal(sealed []byte) *fleet.Error {
	if text, err := s.seal.open(sealed, sealAbout); err != nil || string(text) != sealText {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "secret.key is not the one that this database was made with",
			Hint: "bring the right secret.key back: the device keys can't be read without it"}
	}
	return nil
}

// putKey stores a v1 key and retires the one before, whose bytes are forgotten.
func (s *Store) putKey(t *tx, kind, owner string, key fleet.Key, now time.Time) error {
	if _, err := t.Exec(`UPDATE keys SET state = 'retired', sealed = ?, retired_at = ?
 WHERE owner_kind = ? AND owner = ? AND purpose = ? AND state = 'active'`, []byte{}, micros(now), kind, owner, purposeV1); err != nil {
		return err
	}
	return s.insertKey(t, kind, owner, purposeV1, 0, key, now)
}

// insertKey stores a key beside those that live.
func (s *Store) insertKey(t *tx, kind, owner, purpose string, number uint8, key fleet.Key, now time.Time) error {
	var id [8]byte
	if _, err := io.ReadFull(s.seal.random, id[:]); err != nil {
		return fmt.Errorf("key id: %w", err)
	}
	name := hex.EncodeToString(id[:])
	sealed, err := s.seal.seal(key[:], aboutKey(purpose, kind, owner, name))
	if err != nil {
		return err
	}
	_, err = t.Exec(`INSERT INTO keys (id, owner_kind, owner, purpose, number, state, sealed, created_at) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)`,
		name, kind, owner, purpose, number, sealed, micros(now))
	return err
}

// key reads and opens an owner's key; sql.ErrNoRows where it has none.
func (s *Store) key(v Runner, kind, owner string) (fleet.Key, error) {
	var key fleet.Key
	var id string
	var sealed []byte
	err := v.Row(`SELECT id, sealed FROM keys WHERE owner_kind = ? AND owner = ? AND purpose = ? AND state = 'active'`,
		kind, owner, purposeV1).Scan(&id, &sealed)
	if err != nil {
		return key, err
	}
	return s.openKey(sealed, purposeV1, kind, owner, id)
}

func (s *Store) openKey(sealed []byte, purpose, kind, owner, id string) (key fleet.Key, err error) {
	text, err := s.seal.open(sealed, aboutKey(purpose, kind, owner, id))
	if err != nil || len(text) != len(key) {
		return key, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("key %s of %s %s can't be opened", id, kind, owner), Err: err,
			Hint: "it was altered in the database: set it anew"}
	}
	copy(key[:], text)
	return key, nil
}
