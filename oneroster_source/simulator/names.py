"""Names as UK schools have them: of people from many places, with their accents."""

# ruff: noqa: RUF001 - a right quotation mark is how these names are written


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIVEN = _names(
    """
    Oliver Amelia Muhammad Olivia Noah Isla George Ava Leo Freya Arthur Lily Harry Florence Jack
    Grace Charlie Mia Jacob Sophie Thomas Evie Oscar Poppy William Ella Henry Charlotte James Ruby
    Zoë Chloë Siân Rhys Eilidh Niamh Seán Aoife Ciarán Megan Gethin Łukasz Zofia Jakub Małgorzata
    Aleksandra Paweł Ionuț Ștefan Andreea João Inês Beatriz José Lucía Noémie François André
    Søren Björn Jürgen Dvořák Tomáš Eszter Zoltán Aarav Priya Arjun Ananya Rohan Diya Harpreet
    Gurpreet Simran Aisha Fatima Ibrahim Yusuf Zainab Hamza Maryam Abdullah Khadija Chidi Adaeze
    Oluwaseun Temitope Kwame Abena Amina Mariam Nguyệt Minh Linh Wei Jing Xiǎo Haruto Yuki Min-jun
    Leyla Mehmet Çağla Şeyma Anastasia Dmytro Oleksandr Kateryna Anne-Marie Jean-Luc D’Arcy
    """
)

FAMILY = _names(
    """
    Smith Jones Taylor Brown Williams Wilson Johnson Davies Robinson Wright Thompson Evans Walker
    White Roberts Green Hall Wood Jackson Clarke O’Connor O’Brien O’Neill MacDonald McCarthy
    Llewellyn Pryce ap-Rhys Ó-Súilleabháin Kowalski Wiśniewski Wójcik Zieliński Popescu Ionescu
    Țăranu Silva Gonçalves García Muñoz Müller Schröder Dvořák Novák Nagy Szabó Patel Shah Sharma
    Singh Kaur Gill Khan Ahmed Hussain Begum Ali Malik Chowdhury Miah Rahman Okafor Adeyemi
    Ọláyínká Mensah Osei Boateng Nguyễn Trần Phạm Chen Wang Li Zhang Tanaka Kim Park Yılmaz Öztürk
    Şahin Kovalenko Shevchenko Al-Farsi El-Sayed Smith-Jones Fitzgerald Campbell-Reid de-Souza
    """
)

SCHOOLS = ("Oakfield", "St Cuthbert’s", "Marlowe", "Ysgol Glan-y-Môr", "Riverside", "Hollins")
AUTHORITY = "Westmere"
