/** argv to role: cli, daemon, sandbox or guest. The only file that exits the process. */
