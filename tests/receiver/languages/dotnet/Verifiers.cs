using System;
using System.Globalization;
using System.Text;

/// <summary>Writes a line per input line; see tests/receiver/toolchains.py.</summary>
static class Verifiers
{
    static void Main()
    {
        string line;
        while ((line = Console.ReadLine()) != null)
        {
            string[] fields = line.Split('\t');
            bool verified = UpliftWebhook.Verify(
                Text(fields[1]), Convert.FromBase64String(fields[3]), Text(fields[4]), Text(fields[5]), Text(fields[6]),
                DateTimeOffset.FromUnixTimeSeconds(long.Parse(Text(fields[2]), CultureInfo.InvariantCulture)));
            Console.WriteLine(verified ? "true" : "false");
        }
    }

    static string Text(string field)
    {
        return field == "-" ? null : Encoding.UTF8.GetString(Convert.FromBase64String(field));
    }
}
