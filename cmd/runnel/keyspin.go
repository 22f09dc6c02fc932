package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/release"
)

// pinFlags say which roots a server is to believe for good. A server that holds no
// key list takes the first one that an operator gives it, whoever made it: so its
// roots have to come by another way than the list itself.
type pinFlags struct {
	roots []string
	m     int
	own   bool
}

func (p *pinFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&p.roots, "root", nil, "for the first list: `file` with public root keys in PEM; may be repeated (default: root*.pub in DIR)")
	f.IntVar(&p.m, "m", 0, "for the first list: `number` of those roots that must have signed it (default: as many as the list says, of the roots in DIR; else all)")
	f.BoolVar(&p.own, "own-roots", false, "for the first list: believe the roots that are in it, which you have compared")
}

// check wants the list to be signed by roots that are believed already, where the
// server holds none. Later lists are judged there, by the one before.
func (p *pinFlags) check(ctx context.Context, cmd *cobra.Command, c *client.Client, arg string, envelope []byte) error {
	held, err := c.KeyLists(ctx)
	if err != nil || len(held) > 0 {
		return err
	}
	e, err := release.ParseEnvelope(slices.Clone(envelope))
	if err != nil {
		return err
	}
	l, err := release.DecodeKeyList(e.Payload)
	if err != nil {
		return err
	}
	files, m, given := p.roots, p.m, cmd.Flags().Changed("m")
	if len(files) == 0 && !p.own {
		if files, err = folderRoots(arg); err != nil {
			return err
		}
		// One's own folder, where the list was made: how many sign is one's own word too.
		if !given {
			m, given = l.M, true
		}
	}
	switch {
	case p.own && len(p.roots) > 0:
		return usagef("--own-roots and --root exclude each other")
	case p.own:
		for _, r := range l.Roots {
			fmt.Fprintf(cmd.ErrOrStderr(), "root %s\n", release.KeyName(r))
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of them sign\n", l.M)
		return nil
	case len(files) == 0:
		return usagef("the server holds no key list: say which roots it is to believe").
			withHint("--root FILE for each, or --own-roots if you have compared those in the list ('runnel keys list' shows them)")
	}
	t, err := rootTrust(files, m, given)
	if err != nil {
		return err
	}
	if _, err := t.Accept(envelope); err != nil {
		if errors.Is(err, manifest.ErrOldQuorum) || errors.Is(err, manifest.ErrNewQuorum) {
			return hinted(err, "it is not signed by the roots that you named: find out who made it")
		}
		return err
	}
	return nil
}

// folderRoots are the public root keys beside the list, where arg is a folder.
func folderRoots(arg string) ([]string, error) {
	st, err := os.Stat(arg)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(arg, "root*.pub"))
}
