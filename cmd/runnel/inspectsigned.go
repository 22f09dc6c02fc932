package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
)

// inspectFile reads a file by what it begins with. Release files and streams are
// read from front to back, others whole.
func inspectFile(cmd *cobra.Command, path, of string) (*inspect.Report, error) {
	if of == "" {
		return inspectOne(cmd, path)
	}
	signed, err := inspectOne(cmd, of)
	if err != nil {
		return nil, err
	}
	if signed.Error != "" {
		return nil, fmt.Errorf("%s: %s", of, signed.Error)
	}
	if signed.Signed == nil || signed.Manifest == nil && signed.Sheet == nil {
		return nil, usagef("%s is neither a manifest nor a sheet nor a release file", of)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	bar := newProgress(cmd.ErrOrStderr(), "reading")
	defer bar.End()
	return inspect.StreamFile(cmd.Context(), f, st.Size(), signed.Signed, func(_ string, done, total int64) { bar.Set(done, total) }), nil
}

func inspectOne(cmd *cobra.Command, path string) (*inspect.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var first [512]byte
	if n, _ := io.ReadFull(f, first[:]); n == len(first) && inspect.IsRelease(first[:]) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		bar := newProgress(cmd.ErrOrStderr(), "reading")
		defer bar.End()
		return inspect.ReleaseFile(cmd.Context(), f, func(_ string, done, total int64) { bar.Set(done, total) }), nil
	}
	data, err := readBounded(path, inspect.MaxSize)
	if err != nil {
		return nil, err
	}
	return inspect.File(data), nil
}

func showSigned(t io.Writer, s *inspect.Signed) {
	if s == nil {
		return
	}
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if s.SHA256 != "" {
		row("sha256", "%s", s.SHA256)
	}
	for _, sig := range s.Signatures {
		row("signature", "key %s, %s, not checked", sig.KID, sig.Alg)
	}
	if l := s.KeyList; l != nil {
		row("key list", "version %d, generation %d: %d of %d roots sign it", l.Version, l.Generation, l.M, len(l.Roots))
		if l.ThrowAway {
			row("throw-away", "its keys are a demo's: refused everywhere else")
		}
		for _, k := range l.Roots {
			row("root", "%s", k.KID)
		}
		for _, k := range l.Keys {
			products := "all products"
			if len(k.Products) > 0 {
				products = fleet.CleanText(strings.Join(k.Products, ", "), 200)
			}
			row("key", "%s, %s, %s", k.KID, strings.Join(k.Roles, ", "), products)
		}
		for _, p := range l.Products {
			row("listed product", "%s, threshold %d, epoch %d, floor %d", fleet.CleanText(p.Name, 64), p.Threshold, p.Epoch, p.Floor)
		}
	}
	if m := s.Manifest; m != nil {
		showManifestRows(row, m)
	}
	if h := s.Sheet; h != nil {
		row("stream", "%s, profile %d, %d bytes of RAM", h.Kind, h.Profile, h.RAM)
		row("image root", "%s", h.ImageRoot)
		if h.BaseDigest != "" {
			row("base", "%s, %d bytes", h.BaseDigest, h.BaseSize)
		}
		row("payload", "%d bytes in chunks of %d", h.Length, h.ChunkBytes)
		row("root", "%s", h.Root)
	}
	for _, st := range s.Streams {
		row(st.Kind+" stream", "%d bytes in chunks of %d, file of %d bytes", st.Length, st.ChunkBytes, st.FileBytes)
		row("  root", "%s", st.Root)
		row("  file sha256", "%s", st.FileSHA256)
	}
}

func showManifestRows(row func(name, format string, args ...any), m *inspect.Manifest) {
	row("product", "%s", fleet.CleanText(m.Product, 64))
	row("hardware", "%s", strings.Join(m.Hardware, ", "))
	row("version", "%s", fleet.CleanText(m.Version, 64))
	row("epoch", "%d", m.Epoch)
	row("sequence", "%d", m.Sequence)
	row("security version", "%d", m.SecurityVersion)
	row("image", "%s, format %s%s, %d bytes", m.Image.Component, m.Image.Format, yes(m.Image.Chip != "", " for "+m.Image.Chip, ""), m.Image.Size)
	row("image sha256", "%s", m.Image.Digest)
	if m.Image.Slot != nil {
		row("slot", "%d only", *m.Image.Slot)
	}
	if m.Image.Address != nil {
		row("address", "0x%x only", *m.Image.Address)
	}
	for _, r := range m.Image.Raw {
		row("raw root", "%s in chunks of %d", r.Root, r.ChunkBytes)
	}
	row("confirm", "%s within %d seconds", yes(m.Confirm.Contact, "after an answer of the server,", "without contact,"), m.Confirm.Seconds)
	if m.SignedAt != 0 && m.SignedAt < 1<<40 {
		row("signed at", "%s", stamp(time.Unix(int64(m.SignedAt), 0)))
	}
}
