module github.com/runnel-fota/runnel/core

go 1.23
