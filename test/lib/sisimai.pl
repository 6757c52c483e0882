#!/usr/bin/perl
# What Sisimai makes of replies: lines of "HOST TAB REPLY" on standard input; for each its reason. A reply is put into a message of RFC 3464.
use strict;
use warnings;
use Sisimai;

while (my $line = <STDIN>) {
	chomp $line;
	my ($host, $reply) = split /\t/, $line, 2;
	my $class = substr $reply, 0, 1;
	my $status = $reply =~ /^\d{3} ([45]\.\d+\.\d+)/ ? $1 : "$class.0.0";
	my $message = <<"END";
From MAILER-DAEMON Sat Nov 28 12:00:00 2026
From: MAILER-DAEMON\@mx.example.com (Mail Delivery System)
To: a\@example.com
Date: Sat, 28 Nov 2026 12:00:00 +0000
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com
Arrival-Date: Sat, 28 Nov 2026 12:00:00 +0000

Final-Recipient: rfc822; user\@example.net
Action: failed
Status: $status
Remote-MTA: dns; $host
Diagnostic-Code: smtp; $reply

--B
Content-Type: message/rfc822

From: a\@example.com
To: user\@example.net
Subject: x
Date: Sat, 28 Nov 2026 12:00:00 +0000

x
--B--
END
	my $found = Sisimai->make(\$message, 'delivered' => 1);
	print $found && @$found ? $found->[0]->reason : 'none', "\n";
}
