package rig

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// spread gives all devices what the first one's report and polls wrote of it: its row, but
// for its name and what its keys came to, and its deployment. A million devices that did it
// for themselves would take an hour on a busy machine. No server has the folder.
func (f *Fleet) spread(ctx context.Context) (err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.Data, "runnel.db")+"?_pragma=synchronous(off)&_pragma=cache_size(-65536)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	first := DeviceID(0)
	devices, err := columns(ctx, db, "devices", "id", "native_keys")
	if err != nil {
		return err
	}
	set := make([]string, len(devices))
	for i, c := range devices {
		set[i] = c + " = first." + c
	}
	if _, err := db.ExecContext(ctx, "UPDATE devices SET "+strings.Join(set, ", ")+" FROM (SELECT * FROM devices WHERE id = ?1) first WHERE devices.id <> ?1", first); err != nil {
		return err
	}
	deployments, err := columns(ctx, db, "deployments", "device")
	if err != nil {
		return err
	}
	list, from := strings.Join(deployments, ", "), "q."+strings.Join(deployments, ", q.")
	_, err = db.ExecContext(ctx, "INSERT INTO deployments (device, "+list+") SELECT d.id, "+from+" FROM devices d, (SELECT * FROM deployments WHERE device = ?1) q WHERE d.id <> ?1 ORDER BY d.id", first)
	return err
}

// columns are those of a table, but for some: whatever the schema is.
func columns(ctx context.Context, db *sql.DB, table string, but ...string) (list []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	skip := map[string]bool{}
	for _, name := range but {
		skip[name] = true
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if !skip[name] {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no table %s: the schema has changed, and this file has to", table)
	}
	return list, rows.Err()
}
